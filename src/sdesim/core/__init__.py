"""Floor 0: random stream, elementary functions, compilation, checks, blocks. No mathematics of processes."""
