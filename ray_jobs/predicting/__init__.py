"""New cases segmented, scored where they have a label, and reported. Knows nothing of training or searches."""
