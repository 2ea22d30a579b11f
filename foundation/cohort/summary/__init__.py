"""summary.html of a prepared cohort: its page, sections and figures."""
