"""U-Nets, losses, thresholds, metrics and inference in pure PyTorch. Knows no Ray, Zarr, DALI, rank or path."""
