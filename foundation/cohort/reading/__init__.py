"""What several source formats share: reading tables in pieces, feature names, positions, scans, the genome."""
