"""The Zarr store and the cache of decoded cases: written, opened, checked. Knows nothing of what cases are used for."""
