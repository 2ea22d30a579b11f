"""Pretraining: a prepared cohort into a model, and what the model has learnt."""
