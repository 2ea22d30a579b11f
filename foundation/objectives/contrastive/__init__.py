"""Losses that compare embeddings, exact over all processes, and the views of a batch that they compare."""
