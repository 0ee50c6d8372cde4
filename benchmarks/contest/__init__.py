"""Training contests: our commands, nnU-Net and MONAI on the same cases for the same CPU time, each a program."""
