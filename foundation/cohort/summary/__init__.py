"""summary.html: the picture of a prepared cohort."""
