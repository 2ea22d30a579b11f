"""What a pretraining run tells."""
