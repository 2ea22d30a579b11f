"""Linear models on plain arrays: baselines and probes, and the one rule that chooses their penalty."""
