"""Methods: what learns and predicts on one fold, adapted networks and linear baselines."""
