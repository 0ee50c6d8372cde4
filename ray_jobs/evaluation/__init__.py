"""A network on whole held-out cases, and the scores of that. Knows no checkpoint schedule, picture or search."""
