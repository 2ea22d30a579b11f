"""Predictions into scores, intervals and differences."""
