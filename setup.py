"""The native kernel, for whoever has a C compiler; without one the package installs and measures in torch."""

import os
import sys

from setuptools import Extension, setup

# The compiler may fuse a multiplication with an addition; it may not reorder sums.
FLAGS = ["-std=c11", "-O3", "-fno-math-errno", "-ffp-contract=fast", "-fvisibility=hidden"]
# The kernel calls nothing of libc; without it, though, auditwheel can't tell for which Linux a wheel is.
LINK = ["-Wl,--no-as-needed"] if sys.platform == "linux" else []

setup(
    ext_modules=[
        Extension(
            "gradwatch.measure._native",
            sources=["gradwatch/measure/_native.c", "gradwatch/measure/shield.c", "gradwatch/measure/sums.c"],
            depends=["gradwatch/measure/dlpack.h", "gradwatch/measure/shield.h", "gradwatch/measure/sums.h"],
            define_macros=[("Py_LIMITED_API", "0x030A0000")],
            extra_compile_args=[] if os.name == "nt" else FLAGS,
            extra_link_args=LINK,
            py_limited_api=True,
            optional=True,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
