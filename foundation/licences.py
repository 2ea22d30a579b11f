"""Licences of weights: what each permits, under which what is made of them may be published, and what a card says.

The identifiers are those of model hubs: SPDX in lower case, and a few of their own. Only these terms are compared; what
a licence says beside them is for whoever publishes to read.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import yaml

UNKNOWN = "not recorded"


class Terms(NamedTuple):
    """What a licence permits.

    Attributes:
        commercial: Use for money.
        derivatives: To share what was made of it, such as a model that was trained further.
        same: What was made of it has to be under the same licence, or to hand on the same restrictions of use.
    """

    commercial: bool = True
    derivatives: bool = True
    same: bool = False


FREE, SAME = Terms(), Terms(same=True)

LICENCES = {
    **dict.fromkeys(("apache-2.0", "mit", "mit-0", "isc", "zlib", "ncsa", "afl-3.0", "artistic-2.0", "bsl-1.0"), FREE),
    **dict.fromkeys(("bsd", "bsd-2-clause", "bsd-3-clause", "bsd-3-clause-clear", "postgresql", "ecl-2.0"), FREE),
    **dict.fromkeys(("unlicense", "wtfpl", "0bsd", "cc0-1.0", "pddl", "odc-by", "cdla-permissive-2.0"), FREE),
    **dict.fromkeys(("cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0"), FREE),
    **dict.fromkeys(("cc-by-sa-3.0", "cc-by-sa-4.0", "odbl", "cdla-sharing-1.0", "ms-pl"), SAME),
    **dict.fromkeys(("gpl-2.0", "gpl-3.0", "agpl-3.0", "lgpl-2.1", "lgpl-3.0", "osl-3.0"), SAME),
    **dict.fromkeys(("mpl-2.0", "epl-1.0", "epl-2.0", "eupl-1.1", "eupl-1.2"), SAME),
    **dict.fromkeys(("openrail", "openrail++", "bigscience-openrail-m", "bigscience-bloom-rail-1.0"), SAME),
    **dict.fromkeys(("creativeml-openrail-m", "bigcode-openrail-m"), SAME),
    **dict.fromkeys(("cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0"), Terms(commercial=False)),
    **dict.fromkeys(("cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0"), Terms(commercial=False, same=True)),
    "cc-by-nd-4.0": Terms(derivatives=False),
    **dict.fromkeys(("cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0"), Terms(commercial=False, derivatives=False)),
}
"""Identifier to terms. Anything else, such as ``other`` or a licence of one company, has to be read by a person."""


def normal(licence: object) -> str:
    """An identifier as the table has it: in lower case, and of the GNU licences without ``-only`` or ``-or-later``."""
    return re.sub(r"-(only|or-later)$", "", str(licence or "").strip().lower())


def refusal(base: str, licence: str, *, derived: bool = True) -> str:
    """Why a work may not be published under a licence, as the end of a sentence; empty where it may.

    Args:
        base: Of what the work was made of; empty where it is not known, which refuses nothing.
        licence: That it is to be published under.
        derived: Whether it was changed; an unchanged work may be handed on under its own licence.
    """
    ours, theirs = normal(licence), normal(base)
    if theirs in ("", UNKNOWN) or (ours == theirs and not derived):
        return ""
    terms, own = LICENCES.get(theirs), LICENCES.get(ours)
    if terms is None:
        return "" if ours == theirs else f"whose terms are not known here, so that {licence} may be freer"
    if not terms.derivatives:
        return "which does not allow to share what was made of it"
    if ours == theirs:
        return ""
    if terms.same:
        return f"which wants the same licence for what was made of it, not {licence}"
    if not terms.commercial and (own is None or own.commercial):
        return f"which forbids commercial use, and {licence} does not"
    return ""


def of_card(path: Path) -> str:
    """The licence that a model card names on top; empty where it names none."""
    found = front_matter(path).get("license")
    return found if isinstance(found, str) else ""


def front_matter(path: Path) -> dict[str, Any]:
    """What stands between ``---`` on top of a README.md; empty where there is nothing that can be read."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    found = re.match(r"---\s*\n(.*?)\n---\s*(\n|$)", text, re.DOTALL)
    try:
        parsed = yaml.safe_load(found[1]) if found else None
    except yaml.YAMLError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


def beside(file: Path) -> str:
    """The licence of the card that lies beside a file, or above the folder ``models`` or ``model`` that it lies in."""
    places = [file.parent, *([file.parent.parent] if file.parent.name in ("models", "model") else [])]
    return next(filter(None, (of_card(place / "README.md") for place in places)), "")
