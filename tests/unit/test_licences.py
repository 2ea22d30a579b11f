"""Licences: what may be published under which, and where a licence is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from foundation.licences import LICENCES, UNKNOWN, beside, front_matter, normal, refusal


@pytest.mark.parametrize(
    ("base", "licence", "why"),
    [
        ("mit", "apache-2.0", ""),
        ("apache-2.0", "cc-by-nc-4.0", ""),
        ("cc-by-nc-4.0", "cc-by-nc-4.0", ""),
        ("cc-by-nc-4.0", "cc-by-nc-sa-4.0", ""),
        ("cc-by-nc-4.0", "cc-by-nc-nd-4.0", ""),
        ("cc-by-nc-4.0", "apache-2.0", "forbids commercial use, and apache-2.0 does not"),
        ("cc-by-nc-4.0", "gpl-3.0", "forbids commercial use"),
        ("cc-by-nc-4.0", "other", "forbids commercial use"),
        ("cc-by-nd-4.0", "cc-by-nd-4.0", "does not allow to share what was made of it"),
        ("cc-by-nc-nd-4.0", "mit", "does not allow to share what was made of it"),
        ("cc-by-sa-4.0", "cc-by-4.0", "wants the same licence"),
        ("cc-by-nc-sa-4.0", "cc-by-nc-4.0", "wants the same licence"),
        ("cc-by-sa-4.0", "CC-BY-SA-4.0", ""),
        ("GPL-3.0-only", "gpl-3.0", ""),
        ("agpl-3.0", "gpl-3.0", "wants the same licence"),
        ("openrail", "mit", "wants the same licence"),
        ("somebodys-own", "mit", "terms are not known here"),
        ("other", "apache-2.0", "terms are not known here"),
        ("somebodys-own", "somebodys-own", ""),
        ("", "mit", ""),
        (UNKNOWN, "mit", ""),
    ],
)
def test_nothing_is_published_more_freely_than_what_it_was_made_of(base: str, licence: str, why: str) -> None:
    found = refusal(base, licence)
    assert (why in found and found) if why else found == ""


def test_what_was_not_changed_may_be_handed_on_under_its_own_licence() -> None:
    assert refusal("cc-by-nc-nd-4.0", "cc-by-nc-nd-4.0", derived=False) == ""
    assert "does not allow" in refusal("cc-by-nc-nd-4.0", "cc-by-nc-4.0", derived=False)


def test_the_table_is_written_as_it_is_looked_up() -> None:
    assert all(normal(name) == name for name in LICENCES)


def test_a_licence_is_found_beside_a_file_or_above_its_bundle(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    file = tmp_path / "models" / "model.pt"
    assert beside(file) == ""
    (tmp_path / "README.md").write_text("---\nlicense: cc-by-4.0\ntags: [a]\n---\n# A bundle\n")
    assert beside(file) == "cc-by-4.0"
    (tmp_path / "models" / "README.md").write_text("---\nlicense: mit\n---\n")
    assert beside(file) == "mit"


@pytest.mark.parametrize("text", ["", "# No front matter", "---\nlicense: [a\n---\n", "---\n- a\n---\n"])
def test_a_card_that_names_none_has_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "README.md").write_text(text)
    assert front_matter(tmp_path / "README.md") == {} and beside(tmp_path / "w.pt") == ""
