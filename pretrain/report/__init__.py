"""report.html and the model card of a pretraining run."""
