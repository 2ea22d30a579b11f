"""Pages are well formed, self-contained, safe against hostile text, and written whole."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser

import pytest

from foundation.report.page import Cell, Page, Picture, Tile, TileRow

HOSTILE = "<script>alert(\"x\")</script> & 'y'"
VOID = {"meta", "img", "br", "link"}


class Reader(HTMLParser):
    """Checks that tags nest, and keeps text and images."""

    def __init__(self, text):
        super().__init__()
        self.open, self.seen, self.texts, self.images, self.styles = [], [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        if tag == "img":
            self.images.append(dict(attrs))
        self.styles += [value for name, value in attrs if name == "style"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.texts.append(data)


def full_page(text="word"):
    page = Page(text, text)
    page.section(text, text)
    page.subsection(text)
    page.text(text)
    page.facts([(text, text)])
    page.table([text, text, text], [(text, 12345, Cell(text, shade=0.5))], text)
    picture = Picture(b"abc", "image/png", 200, text, text, text)
    page.figures([picture])
    page.wall([TileRow(text, [(text, [Tile(picture, (text, text, text, text)), Tile(None, gap=text)])])])
    with page.folded(text):
        page.listing(text)
    return page


def test_page_is_well_formed_and_asks_for_nothing_outside_itself():
    text = full_page().html()
    reader = Reader(text)
    assert "script" not in reader.seen
    assert "link" not in reader.seen
    assert "http:" not in text
    assert "https:" not in text
    assert "default-src 'none'" in text
    assert "width=device-width" in text
    assert all(image["src"].startswith("data:image/png;base64,") and image["alt"] for image in reader.images)
    assert base64.b64decode(reader.images[0]["src"].split(",")[1]) == b"abc"


def test_hostile_text_stays_text_everywhere():
    tame, hostile = Reader(full_page("word").html()), Reader(full_page(HOSTILE).html())
    assert hostile.seen == tame.seen
    assert "".join(hostile.texts).count(HOSTILE) == "".join(tame.texts).count("word")
    assert hostile.images[0]["alt"] == HOSTILE


def test_same_calls_give_the_same_text():
    assert full_page().html() == full_page().html()


def test_links_of_the_contents_lead_to_their_sections():
    page = Page("t")
    for heading in ("Same", "Same", "Ärzte & Co", "…"):
        page.section(heading)
    text = page.html()
    targets = re.findall(r'<h2 id="([^"]+)">', text)
    assert re.findall(r'<a href="#([^"]+)">', text) == targets
    assert len(set(targets)) == 4


def test_numbers_are_grouped_and_set_to_the_right_under_their_heading():
    page = Page("t")
    page.table(["name", "count"], [("a", 1234567)])
    assert '<td class="n">1,234,567</td>' in page.html()
    assert '<th scope="col" class="n">count</th>' in page.html()


@pytest.mark.parametrize(("shade", "colour"), [(0.0, "#ffffff"), (1.0, "#69b3e8"), (7.0, "#69b3e8"), (-1.0, "#ffffff")])
def test_shades_run_from_white_to_a_blue_that_black_text_can_be_read_on(shade, colour):
    page = Page("t")
    page.table(["a"], [])
    page.table(["a", "b"], [("x", Cell("1", shade=shade))])
    assert colour in page.html()
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (red, green, blue)]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    ink = 0.0103  # of #1a1a1a
    assert (luminance + 0.05) / (ink + 0.05) > 7


def test_a_row_of_another_length_than_the_header_is_refused():
    with pytest.raises(ValueError, match="zip"):
        Page("t").table(["a", "b"], [("x",)])


def test_write_replaces_the_old_page_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "report.html"
    path.write_text("old")
    page = full_page()
    page.write(path)
    assert path.read_text(encoding="utf-8") == page.html()
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"]


def test_a_failed_write_keeps_the_old_page_and_leaves_nothing_half_written(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("old")

    def full_disk(self, text, encoding):
        self.write_bytes(text[:10].encode())
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", full_disk)
    with pytest.raises(OSError, match="No space"):
        full_page().write(path)
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"]


def test_wide_figures_scroll_rather_than_shrink_until_their_text_is_too_small():
    page = Page("t")
    page.figures([Picture(b"x", "image/svg+xml", 1000, "wide"), Picture(b"x", "image/svg+xml", 300, "narrow")])
    text = page.html()
    assert re.findall(r"width:(\d+)px;min-width:(\d+)px", text) == [("1000", "850"), ("300", "300")]
    assert text.count('<figure class="wide">') == 1


def test_what_is_folded_away_stands_behind_its_heading_and_a_lead_has_a_paragraph_for_each_line():
    page = Page("title", "first\nsecond")
    with page.folded("more"):
        page.text("hidden")
    page.text("open")
    text = page.html()
    assert re.search(r"<details><summary>more</summary>\s*<p>hidden</p>\s*</details>\s*<p>open</p>", text)
    assert '<p class="lead">first</p><p class="lead">second</p>' in text
