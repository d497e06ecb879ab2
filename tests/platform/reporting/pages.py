"""Reads a report back: its words, and the numbers of its cells."""

from __future__ import annotations

from html.parser import HTMLParser


class Page(HTMLParser):
    """Attributes:
    cells: `data-key` → (value, low, high) of the cells that carry numbers.
    links: every address that the page asks a browser for.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.cells: dict[str, tuple[float, float, float]] = {}
        self.links: list[str] = []
        self.words: list[str] = []
        self._silent = False
        self.feed(text)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said = {k: v or "" for k, v in attrs}
        self._silent = tag in ("style", "script")
        if "data-value" in said:
            value, low, high = (float(said[f"data-{part}"]) for part in ("value", "low", "high"))
            shown = self.cells.setdefault(said["data-key"], (value, low, high))
            assert shown == (value, low, high), f"{said['data-key']} is shown with two values"
        self.links += [said[a] for a in ("src", "href", "xlink:href") if said.get(a)]

    def handle_endtag(self, tag: str) -> None:
        self._silent = False

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.words.append(data)
