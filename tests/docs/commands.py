"""The shell lines of a page: those of gradwatch run, of the others it is looked whether they can be meant."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
import shlex

import gradwatch.cli
from tests.docs.pages import ROOT

MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def try_commands(text: str) -> str:
    """Run or check each line; what the commands of gradwatch have printed."""
    printed = ""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["gradwatch"]:
            printed += _run(words[1:])
        elif words:
            _check(words)
    return printed


def _run(arguments: list[str]) -> str:
    kept = arguments[: arguments.index(">")] if ">" in arguments else arguments
    kept = ["https://example.org/docs" if word == "URL" else word for word in kept]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert gradwatch.cli.main(kept) == 0, arguments
    assert printed.getvalue(), arguments
    return printed.getvalue()


def _check(words: list[str]) -> None:
    """These would install packages, train for minutes or need a server: what they name must be there."""
    program, *rest = words
    if program == "make":
        for target in [word for word in rest if "=" not in word]:
            assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE), words
    elif program == "pip":
        for extra in re.findall(r"\[([\w,]+)\]", " ".join(rest)):
            assert all(re.search(rf"^{name} = ", PYPROJECT, re.MULTILINE) for name in extra.split(",")), words
    elif program.startswith("python") and rest[0] == "-m":
        assert importlib.util.find_spec(rest[1]), words
    elif program.startswith("python"):
        assert (ROOT / rest[0]).is_file(), words
    else:
        name = program.removeprefix(".venv/bin/")
        assert all((ROOT / word).exists() for word in rest if word.startswith("tests/")), words
        assert re.search(rf'"{name}[">]', PYPROJECT), f"No test knows the command {' '.join(words)!r}."
