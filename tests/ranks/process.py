"""One process of several: ``python -m tests.ranks.process RANK WORLD PORT RESULT FUNCTION...``."""

from __future__ import annotations

import importlib
import logging
import pickle
import sys
import traceback
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist


def main(rank: int, world: int, port: int, result: str, functions: list[str]) -> None:
    torch.set_num_threads(1)
    logging.basicConfig(level=logging.WARNING)
    # Torch warns of parts of its own.
    warnings.filterwarnings("error", module="gradwatch")
    store = dist.TCPStore("127.0.0.1", port, is_master=False)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world, timeout=timedelta(seconds=30))
    returned: dict[str, Any] = {}
    for function in functions:
        print("begin", function)
        module, _, name = function.partition(":")
        try:
            returned[function] = getattr(importlib.import_module(module), name)(rank, world)
        except Exception:
            returned[function] = traceback.format_exc()
            # Printed as well, since the others may wait for this rank now.
            print(returned[function])
        dist.barrier()
    dist.destroy_process_group()
    Path(result).write_bytes(pickle.dumps(returned))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], sys.argv[5:])
