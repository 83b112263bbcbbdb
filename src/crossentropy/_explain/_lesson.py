"""A lesson: steps as text for a terminal, HTML for a notebook, or LaTeX."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ._markup import html, tex
from ._step import Step

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass(frozen=True)
class Lesson:
    """Steps to be printed, or to be shown by a notebook."""

    steps: tuple[Step, ...]

    def to_tex(self) -> str:
        """The steps as a LaTeX fragment; it needs amsmath."""
        return tex(self.steps)

    def _repr_html_(self) -> str:
        return html(self.steps)

    def __rich__(self) -> "RenderableType":
        from ._text import text

        return text(self.steps)

    def __str__(self) -> str:
        try:
            from rich.console import Console
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "a lesson is printed by rich: install it with pip install 'crossentropy[cli]'"
            ) from error
        console = Console(color_system=None, highlight=False)
        with console.capture() as capture:
            console.print(self)
        return "\n".join(line.rstrip() for line in capture.get().splitlines())
