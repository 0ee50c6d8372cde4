"""Cases, masks and curves drawn as images. Knows no run, no rank and no file they end up in."""
