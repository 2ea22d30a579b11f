"""Pretraining: a prepared cohort into a model, its evaluation and its report."""
