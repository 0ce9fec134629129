"""A long run with every sink that is not to keep everything, scraped once a second: does anything grow or get lost?

``make soak``, or ``python -m tests.soak --steps 1000000``; the figures of one such run are in ``docs/soak.md``.
"""
