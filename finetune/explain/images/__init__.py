"""Explanations of scans: maps of what the networks of a stack read in them, put to the test, on the scan itself."""

from finetune.explain.images.run import ImagesExplained, explain_images, readers_of

__all__ = ["ImagesExplained", "explain_images", "readers_of"]
