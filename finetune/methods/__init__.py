"""What learns on a fold: adapted networks and linear baselines."""
