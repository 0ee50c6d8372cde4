"""What a run keeps on disk or S3 and goes on from. Knows nothing of how it came about: no scores, no Tune."""
