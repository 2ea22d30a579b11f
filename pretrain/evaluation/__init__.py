"""Evaluation of embeddings: retrieval, the shape of the space, and linear probes on held-out patients."""
