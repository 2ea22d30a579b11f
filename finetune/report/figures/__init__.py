"""The figures of a fine-tuning report, as SVG that is the same to the byte each time."""
