"""What every training loop shares: the update, the optimiser, averages, parallelism, checkpoints."""
