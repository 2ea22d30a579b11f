"""A model folder: written whole, read with everything checked."""
