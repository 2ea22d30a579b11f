"""A cohort that never existed: its patients, their scans, assays and outcomes, and the truth behind them."""
