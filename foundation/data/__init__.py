"""A prepared cohort into batches."""
