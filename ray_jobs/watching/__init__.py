"""What a run says while it goes: progress, events, time, advice. Reads the training and never steers it."""
