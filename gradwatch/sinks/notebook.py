"""A picture that changes in place beneath the cell of a notebook that asked for it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["Notebook", "as_html", "notebook"]

WIDTH = 110

# Colours of the page, light or dark; only what rich colours has one of its own.
_STYLE = "white-space:pre;overflow-x:auto;line-height:normal;font-family:Menlo,Consolas,monospace"
_PAGE = f'<pre style="{_STYLE}">{{code}}</pre>'


class Notebook:
    """A display of its own in the present cell."""

    def __init__(self) -> None:
        from IPython import display

        # Its functions have no types.
        module: Any = display
        self._html = module.HTML
        self._handle = module.display(self._html(""), display_id=True)

    def show(self, picture: RenderableType, width: int | None) -> None:
        """Put a picture in the place of the one before."""
        self._handle.update(self._html(as_html(picture, width)))


def notebook() -> Notebook | None:
    """A display where a kernel runs this process, None elsewhere."""
    # Asked only where it is loaded already: nobody else can be a kernel.
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return Notebook() if hasattr(shell, "kernel") else None


def as_html(picture: RenderableType, width: int | None = None) -> str:
    """A picture as one element of HTML, without styles or scripts around it."""
    import io

    from rich.console import Console

    console = Console(
        record=True, file=io.StringIO(), width=width or WIDTH, force_jupyter=False, force_terminal=True
    )
    console.print(picture)
    return console.export_html(inline_styles=True, code_format=_PAGE)
