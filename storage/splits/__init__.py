"""Which case trains, validates or tests: dealt out once, and kept in the store. Knows no voxel."""
