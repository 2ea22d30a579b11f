"""Layers that several towers and tokenizers are made of."""
