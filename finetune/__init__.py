"""Adaptation: a pretrained model to tasks, fold by fold, and what it is worth."""
