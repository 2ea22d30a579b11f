"""Linear models, which everything is measured against, and one rule that chooses their penalty."""
