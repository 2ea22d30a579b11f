"""Metrics: scores of predictions as functions of weights of patients, and their names in reports."""
