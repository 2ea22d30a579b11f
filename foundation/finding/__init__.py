"""Regions found in images, by what was drawn on those of training patients, and described in numbers."""
