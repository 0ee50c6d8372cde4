"""One case in memory: its record, grid, numbers and voxels, and as a NIfTI file again. Knows no store."""
