"""How the processes of a run share its work: one file for each strategy; `base.py` says what every strategy does."""
