"""A program as a graph: recorded once, compiled, run many steps at a time."""
