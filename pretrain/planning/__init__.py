"""What a pretraining run will cost on any number of GPUs, without running it."""
