"""From predictions of test patients to scores, intervals and differences; no model is needed here."""
