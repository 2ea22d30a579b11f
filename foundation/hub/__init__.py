"""Model folders: weights, preprocessing and seen patients, written whole and read with checks."""
