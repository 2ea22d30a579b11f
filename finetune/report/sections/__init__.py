"""The parts of a fine-tuning report, one file for each question that a reader has."""
