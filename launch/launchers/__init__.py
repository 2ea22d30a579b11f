"""Starting runs on many processes: here, under SLURM, on Kubernetes."""
