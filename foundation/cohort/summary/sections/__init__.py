"""The sections of a cohort's summary, one file for each question that a reader has."""
