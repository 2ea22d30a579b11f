"""What a cohort is, what a batch is, and the words that all rooms share."""
