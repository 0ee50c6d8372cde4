"""What the values of a segmentation mean, and which regions they make. Knows no file."""
