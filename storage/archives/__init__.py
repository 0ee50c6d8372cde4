"""Archives as they were downloaded, listed and read where they lie. Writes nothing."""
