"""Tensor mathematics that knows nothing of probability programs."""
