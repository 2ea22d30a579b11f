"""What pretraining and fine-tuning share: cohorts, batches, models, objectives, training, metrics, reports."""
