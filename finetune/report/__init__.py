"""report.html of a fine-tuning run: its page, sections and figures."""
