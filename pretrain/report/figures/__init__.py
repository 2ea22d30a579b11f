"""The figures of a pretraining report, as SVG that is the same to the byte each time."""
