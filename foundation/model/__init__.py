"""Towers and what they are made of, joined in one space."""
