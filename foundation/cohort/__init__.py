"""Source files of a hospital into a prepared cohort, and that cohort read back."""
