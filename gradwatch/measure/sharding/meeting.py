"""Who has the other parts of the parameters, and whether they track them too."""

from __future__ import annotations

from collections.abc import Mapping

from gradwatch.measure.sharding.ranks import Peers
from gradwatch.measure.sharding.shards import Shards

__all__ = ["peers_for"]


def peers_for(shards: Shards, sizes: Mapping[str, int], steps: int, terms: str, asks: bool) -> Peers | None:
    """Meet the ranks that have the other parts of the parameters; waits for them.

    Args:
        shards: which ranks these are.
        sizes: by optimizer, the numbers that a step of it gives to the sum over ranks.
        steps: steps that are added up at once.
        terms: what has to be the same on all of them besides.
        asks: they will be asked for something at each step.

    Returns:
        None where there are none, where they do not track, and where every norm is whole on each rank.
    """
    if len(shards.ranks) == 1:
        return None
    names = [f"{name} {size}" for name, size in sizes.items()]
    terms = f"{names} {shards.signature} {terms}"
    peers = Peers.meet(shards.ranks, terms, steps * max(sizes.values()), questions=asks)
    shards.agreed = peers is not None
    if peers is not None and not shards.divided:
        # Partial gradients may have to be added up, but nothing of a row.
        peers.close(together=True)
        return None
    return peers
