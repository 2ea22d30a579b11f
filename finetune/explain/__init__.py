"""Explanations of what a run keeps: which genes, pathways, modalities and regions its predictions come from."""
