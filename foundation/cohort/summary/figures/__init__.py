"""The figures of a cohort's summary, as SVG that is the same to the byte every time."""
