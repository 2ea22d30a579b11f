"""Adaptation of a pretrained model to tasks, and their evaluation."""
