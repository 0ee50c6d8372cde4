"""What a user may say to a command, as typed dataclasses, and how it answers. Knows no PyTorch, Ray or DALI."""
