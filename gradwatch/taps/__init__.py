"""Seeing: the end of a backward pass, a clip call, an optimizer's step. Torch's machinery, and no numbers.

A tap calls back and knows nothing else. Every callback that it is given must not raise: ``guarded`` in
``gradwatch.taps.guard`` sees to that.
"""
