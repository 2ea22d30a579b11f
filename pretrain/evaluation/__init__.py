"""What embeddings of held-out patients are worth."""
