"""A simulated cohort: its patients, their scans, assays and outcomes, and the truth behind them."""
