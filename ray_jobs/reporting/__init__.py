"""A run as its folder tells it: the page of it, and of several that belong together. Steers nothing, asks nobody."""
