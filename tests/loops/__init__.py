"""Conformance: whatever the loop, both norms are right and nothing is perturbed.

Each test here is a whole training loop, as people write them. It runs twice, bare and tracked, and says by calls
to the ``Run`` that it is given where the truth is to be taken: ``before`` where the gradients are complete and
nothing has clipped them, ``after`` where the optimizer is about to consume them. ``conformance`` compares the
records with that truth and the two runs with each other, bit for bit.
"""
