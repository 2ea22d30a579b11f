"""The sections of a pretraining report, one file for each question that a reader has."""
