"""Measuring: exact L2 norms of gradients, whose they are, and the record of a step. Torch, and no verdicts."""
