"""The page of an explanation, and its figures."""
