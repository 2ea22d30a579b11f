"""`chiasma describe`: what a folder of source files holds, and a cohort.yaml to start from."""
