"""A self-contained HTML page: headings, text, tables, figures and tiles in one file that needs nothing else."""

from __future__ import annotations

import base64
import contextlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from html import escape
from pathlib import Path


@dataclass(frozen=True)
class Picture:
    """An image to embed.

    Attributes:
        data: Its bytes.
        media: Its media type, such as ``image/svg+xml``.
        width: Width in CSS pixels at which its text has its intended size.
        alt: What it shows, in words, for those who cannot see it.
        title: Stands above it.
        caption: Stands below it.
    """

    data: bytes
    media: str
    width: int
    alt: str
    title: str = ""
    caption: str = ""


@dataclass(frozen=True)
class Cell:
    """A cell of a table that is more than text or a number.

    Attributes:
        text: What is in it.
        shade: 0 (white) to 1 (blue) behind the text; None for no shade.
        number: Set to the right, in figures of equal width.
    """

    text: str
    shade: float | None = None
    number: bool = True


@dataclass(frozen=True)
class Tile:
    """A square picture with letters at its edges, or a marked gap where there is none.

    Attributes:
        picture: What to show; None for a gap.
        edges: Letters at the left, right, top and bottom.
        gap: What a gap says.
    """

    picture: Picture | None
    edges: tuple[str, str, str, str] = ("", "", "", "")
    gap: str = ""


@dataclass(frozen=True)
class TileRow:
    """One row of a wall: a label, and named strips of tiles that stay together."""

    label: str
    strips: list[tuple[str, list[Tile]]] = field(default_factory=list)


Entry = str | int | Cell

GAP = Cell("–")
"""Where a table has nothing to say."""


class Page:
    """A page under construction; the same calls give the same text.

    Args:
        title: Of the page, in the browser's tab and as its heading.
        lead: What there is to know, in one sentence; of several matters, one line each.
    """

    def __init__(self, title: str, lead: str = "") -> None:
        self.title = title
        self.lead = lead
        self._sections: list[tuple[str, str]] = []
        self._body: list[str] = []
        self._scripts: list[str] = []

    def section(self, heading: str, text: str = "") -> None:
        """Begin a section; it appears in the list of contents."""
        used = {anchor for anchor, _ in self._sections}
        stem = re.sub(r"\W+", "-", heading.casefold()).strip("-") or "section"
        anchor = next(name for name in _numbered(stem) if name not in used)
        self._sections.append((anchor, heading))
        self._body.append(f'<h2 id="{anchor}">{escape(heading)}</h2>')
        if text:
            self.text(text)

    def subsection(self, heading: str) -> None:
        """Begin a part of a section."""
        self._body.append(f"<h3>{escape(heading)}</h3>")

    def text(self, text: str) -> None:
        """Add a paragraph."""
        self._body.append(f"<p>{escape(text)}</p>")

    def facts(self, facts: Iterable[tuple[str, str]]) -> None:
        """Add key numbers: what is counted, and how many."""
        items = (f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts)
        self._body.append(f'<dl class="facts">{"".join(items)}</dl>')

    def table(self, header: Sequence[str], rows: Iterable[Sequence[Entry]], caption: str = "") -> None:
        """Add a table whose first column names its rows.

        Args:
            header: Names of the columns.
            rows: As many entries as the header has; integers are grouped in thousands and set to the right.
            caption: Stands above it.
        """
        numbers: list[bool] = []
        body = []
        for row in rows:
            numbers = numbers or [isinstance(entry, int) or getattr(entry, "number", False) for entry in row]
            first, *rest = [_entry(entry) for entry in row]
            cells = "".join(f"<td{attributes}>{text}</td>" for attributes, text in rest)
            body.append(f'<tr><th scope="row">{first[1]}</th>{cells}</tr>')
        right = numbers or [False] * len(header)
        head = "".join(
            f'<th scope="col"{_NUMBER if number else ""}>{escape(name)}</th>'
            for name, number in zip(header, right, strict=True)
        )
        title = f'<p class="caption">{escape(caption)}</p>' if caption else ""
        self._body.append(
            f'{title}<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption or "table")}"><table>'
            f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
        )

    def listing(self, text: str) -> None:
        """Add a text with its lines as they are."""
        # Long lines scroll inside their box, not the page.
        self._body.append(f'<div class="scroll" tabindex="0"><pre>{escape(text)}</pre></div>')

    @contextlib.contextmanager
    def folded(self, heading: str) -> Iterator[None]:
        """Fold away behind a heading what is added meanwhile."""
        self._body.append(f"<details><summary>{escape(heading)}</summary>")
        yield
        self._body.append("</details>")

    def figures(self, pictures: Iterable[Picture]) -> None:
        """Add figures side by side, as many as fit."""
        cards = "".join(_card(picture) for picture in pictures)
        self._body.append(f'<div class="cards">{cards}</div>')

    def wall(self, rows: Iterable[TileRow]) -> None:
        """Add rows of tiles on a dark ground."""
        self._body.append(f'<div class="wall">{"".join(_tile_row(row) for row in rows)}</div>')

    def interactive(self, markup: str, script: str) -> None:
        """Add a part that a script brings to life.

        Args:
            markup: HTML, with all that is not the page's own escaped in it.
            script: Runs once at the end of the page, however many parts want it; no other script may run there.
        """
        self._body.append(markup)
        if script not in self._scripts:
            self._scripts.append(script)

    def html(self) -> str:
        """The whole page."""
        hashes = (base64.b64encode(sha256(script.encode()).digest()).decode("ascii") for script in self._scripts)
        policy = _POLICY + "".join(f"{' ' if n else '; script-src '}'sha256-{h}'" for n, h in enumerate(hashes))
        links = "".join(f'<a href="#{anchor}">{escape(heading)}</a>' for anchor, heading in self._sections)
        contents = f'<nav aria-label="contents">{links}</nav>' if links else ""
        lead = "".join(f'<p class="lead">{escape(line)}</p>' for line in self.lead.splitlines())
        return (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{escape(self.title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
            f"<h1>{escape(self.title)}</h1>\n{lead}\n{contents}\n"
            + "\n".join(self._body)
            + "\n</main>\n"
            + "".join(f"<script>{script}</script>\n" for script in self._scripts)
            + "</body>\n</html>\n"
        )

    def write(self, path: Path) -> None:
        """Write the page; the file appears only when it is whole.

        Raises:
            OSError: The disk is full or read-only; nothing half written is left.
        """
        partial = path.with_name(path.name + ".partial")
        try:
            partial.write_text(self.html(), encoding="utf-8")
            partial.replace(path)
        except OSError:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            raise


def _numbered(stem: str) -> Iterable[str]:
    yield stem
    number = 2
    while True:
        yield f"{stem}-{number}"
        number += 1


NARROW = 380
"""Figures up to this many pixels stand side by side; wider ones take the whole width."""

_NUMBER = ' class="n"'


def _entry(entry: Entry) -> tuple[str, str]:
    """Attributes and text of a cell."""
    if isinstance(entry, int):
        return _NUMBER, f"{entry:,}"
    if isinstance(entry, str):
        return "", escape(entry)
    attributes = _NUMBER if entry.number else ""
    if entry.shade is not None:
        # White to a blue on which black text keeps a contrast above 7:1.
        red, green, blue = (round(255 - min(max(entry.shade, 0.0), 1.0) * drop) for drop in (150, 76, 23))
        attributes += f' style="background:#{red:02x}{green:02x}{blue:02x}"'
    return attributes, escape(entry.text)


def _image(picture: Picture, style: str = "") -> str:
    data = base64.b64encode(picture.data).decode("ascii")
    return f'<img src="data:{picture.media};base64,{data}" alt="{escape(picture.alt)}"{style}>'


def _card(picture: Picture) -> str:
    title = f"<h4>{escape(picture.title)}</h4>" if picture.title else ""
    caption = f"<figcaption>{escape(picture.caption)}</figcaption>" if picture.caption else ""
    # A wide figure scrolls sideways on a phone rather than shrink until its text cannot be read.
    style = f' style="width:{picture.width}px;min-width:{min(picture.width, max(300, picture.width * 85 // 100))}px"'
    wide = ' class="wide"' if picture.width > NARROW else ""
    return f'<figure{wide}>{title}<div class="scroll">{_image(picture, style)}</div>{caption}</figure>'


def _tile_row(row: TileRow) -> str:
    strips = "".join(
        f'<div class="strip"><div class="name">{escape(name)}</div>'
        f'<div class="tiles">{"".join(_tile(tile) for tile in tiles)}</div></div>'
        for name, tiles in row.strips
    )
    return f'<div class="row"><div class="label">{escape(row.label)}</div><div class="strips">{strips}</div></div>'


def _tile(tile: Tile) -> str:
    if tile.picture is None:
        return f'<div class="tile gap"><span>{escape(tile.gap)}</span></div>'
    letters = "".join(
        f'<span class="{side}">{escape(letter)}</span>'
        for side, letter in zip(("left", "right", "top", "bottom"), tile.edges, strict=True)
        if letter
    )
    return f'<div class="tile">{_image(tile.picture)}{letters}</div>'


_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""What the browser may load: what is in the file, and no script but those that the page knows by their hash."""

_STYLE = """
:root{color-scheme:light}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:#fff;color:#1a1a1a;
  font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
main{max-width:1160px;margin:0 auto;padding:24px 16px 64px}
h1{font-size:1.9rem;line-height:1.2;margin:0 0 8px;overflow-wrap:anywhere}
h2{font-size:1.35rem;margin:48px 0 8px;padding-top:12px;border-top:1px solid #d5d9de}
h3{font-size:1.1rem;margin:28px 0 4px}
h4{font-size:.95rem;margin:0 0 4px}
p{margin:8px 0;max-width:78ch}
.lead{font-size:1.15rem}
nav{display:flex;flex-wrap:wrap;gap:4px 16px;margin:16px 0;font-size:.9rem}
nav a{color:#00527e}
.facts{display:grid;grid-template-columns:repeat(auto-fill,minmax(160px,1fr));gap:12px;margin:16px 0}
.facts div{display:flex;flex-direction:column-reverse;justify-content:flex-end;
  padding:10px 12px;background:#f3f5f7;border-radius:6px}
.facts dt{font-size:.85rem;color:#444}
.facts dd{margin:0;font-size:1.4rem;font-weight:600;line-height:1.25;overflow-wrap:anywhere}
.scroll{overflow-x:auto;max-width:100%}
table{border-collapse:separate;border-spacing:0;margin:4px 0 12px;font-size:.9rem}
.caption{color:#444;font-size:.9rem;margin:16px 0 0}
th,td{max-width:44ch;padding:3px 10px;text-align:left;vertical-align:top;border-bottom:1px solid #e3e6ea}
th,td{overflow-wrap:break-word}
thead th{border-bottom:2px solid #9aa3ad;vertical-align:bottom}
th:first-child{position:sticky;left:0;max-width:28ch;background:#fff;z-index:1}
tbody th{font-weight:500}
@media (max-width:600px){th:first-child{max-width:15ch}}
.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(340px,100%),1fr));
  gap:28px 24px;margin:16px 0;align-items:start}
figure{margin:0;min-width:0}
figure.wide{grid-column:1/-1}
figure img{display:block;max-width:100%;height:auto}
figcaption{font-size:.85rem;color:#444;max-width:78ch}
.wall{margin:12px 0;background:#23262a;color:#fff;border-radius:6px;padding:4px 12px 12px}
.row{padding:10px 0;border-top:1px solid #4a4f55}
.row:first-child{border-top:0}
.label{font-size:.85rem;font-weight:600}
.strips{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(300px,100%),1fr));gap:8px 14px}
.strip{max-width:520px;min-width:0}
.name{font-size:.8rem;color:#d5d9de}
.tiles{display:grid;grid-auto-flow:column;grid-auto-columns:1fr;gap:3px}
.tile{position:relative;aspect-ratio:1;background:#262626}
.tile img{display:block;width:100%;height:100%;object-fit:contain}
.tile span{position:absolute;font-size:11px;line-height:1;
  font-weight:600;color:#ffd54d;text-shadow:0 0 2px #000,0 0 3px #000}
.tile .left{left:3px;top:50%;transform:translateY(-50%)}
.tile .right{right:3px;top:50%;transform:translateY(-50%)}
.tile .top{top:3px;left:50%;transform:translateX(-50%)}
.tile .bottom{bottom:3px;left:50%;transform:translateX(-50%)}
.gap{background:repeating-linear-gradient(45deg,#3a3f45 0 6px,#2d3136 6px 12px);border:1px dashed #aab2bb}
.tile.gap span{inset:0;display:flex;align-items:center;
  justify-content:center;text-align:center;font-size:12px;color:#fff}
@media print{main{max-width:none;padding:0}.row,figure,tr{break-inside:avoid}nav{display:none}}
"""
