"""A cluster and the processes on it: joined, told apart, given work, drained. Knows nothing of networks or scores."""
