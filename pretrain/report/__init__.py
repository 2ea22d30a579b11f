"""report.html of a pretraining run (its page, sections and figures), and the model card."""
