"""Losses that compare embeddings, exact over all processes, and the looks at a batch that they compare."""
