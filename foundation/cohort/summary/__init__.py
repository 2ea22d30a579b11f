"""summary.html of a prepared cohort: its page and its plots."""
