"""Fine-tuning: a pretrained model adapted to tasks, fold by fold, and evaluated beside its baselines."""
