"""What a fine-tuning run tells."""
