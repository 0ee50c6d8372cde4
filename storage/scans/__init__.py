"""NIfTI files found, named and read. Knows nothing of Zarr."""
