"""Lets torch 2.6.0 as PyPI has it for Linux on x86-64, a CUDA build, be imported without CUDA's libraries.

It is linked against 1.9 GB of them, of which nothing is called on the CPU; but Python loads extension modules in a
way that looks up every function at once. Here each library gets a stand-in, a link to one of torch's own, and the
environment's Python looks up a function when it is first called. A call that does reach CUDA ends the process, so
the tests are run with no GPU in sight. Run once by the Python of the environment; elsewhere it does nothing.
"""

from __future__ import annotations

import sysconfig
from pathlib import Path

STAND_INS = [
    "libcublas.so.12",
    "libcublasLt.so.12",
    "libcudnn.so.9",
    "libcufft.so.11",
    "libcurand.so.10",
    "libcusparse.so.12",
    "libcusparseLt.so.0",
    "libnccl.so.2",
]


def main() -> None:
    packages = Path(sysconfig.get_path("purelib"))
    libraries = packages / "torch" / "lib"
    if (libraries / "libtorch_cuda.so").exists():
        for name in STAND_INS:
            (libraries / name).unlink(missing_ok=True)
            (libraries / name).symlink_to("libc10.so")
        (packages / "load_lazily.pth").write_text("import os, sys; sys.setdlopenflags(os.RTLD_LAZY)\n")


if __name__ == "__main__":
    main()
