"""Many runs, or many thresholds, and which is best. Knows nothing of predictions."""
