"""What predictions are worth: scores with intervals, and the linear models that others are measured by."""
