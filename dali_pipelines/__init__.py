"""Zarr stores to device batches through NVIDIA DALI. Imports storage; never Ray, never models."""
