"""The reporting checklist of a model card: items of CLAIM and TRIPOD+AI, answered from a run and from about.yaml.

CLAIM is the update of 2024 (Tejani et al., 44 items), TRIPOD+AI is Collins et al. 2024 (27 items). Items on the title,
abstract and discussion of a paper are left to the paper. What no run records is asked of whoever publishes: a line of
about.yaml in the run folder answers it, and an item without an answer says so.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from foundation.errors import ConfigError, nearest
from foundation.licences import UNKNOWN
from foundation.yaml_text import parse

FILE = "about.yaml"
"""Of a run folder, for whoever publishes."""


class Item(NamedTuple):
    """Something that a reader of a prediction model has to know.

    Attributes:
        title: In words.
        claim: Items of CLAIM 2024; empty where it asks for nothing of the kind.
        tripod: Items of TRIPOD+AI.
        told: The answer from the run; empty where no run records one.
        key: Of about.yaml; what stands there goes before the answer of the run.
        ask: What to write there.
    """

    title: str
    claim: str
    tripod: str
    told: str = ""
    key: str = ""
    ask: str = ""

    def answer(self, about: Mapping[str, str]) -> str:
        """What the card says."""
        written = about.get(self.key, "") if self.key else ""
        missing = f"{UNKNOWN}: {self.ask} (`{self.key}`)" if self.key and not written else ""
        return "; ".join(filter(None, [written, self.told, missing]))


def items(run: Mapping[str, str]) -> list[Item]:
    """All items, in the order of the two lists.

    Args:
        run: What the run recorded, by the names that are used here; see `finetune.publish.recorded`.
    """
    return [
        Item("Background, and what the model is for", "3", "3a, 3b", run["use"], "purpose", "which decision, for whom"),
        Item("Known inequalities in health", "", "3c", "", "inequalities", "between which groups"),
        Item("Aims and hypotheses", "4, 6", "4", run["aim"]),
        Item("Design", "5", "5a", "", "design", "prospective or retrospective; a trial, a register, routine care"),
        Item("Sources of data", "7", "5a", run["cohort"], "source", "where the data come from"),
        Item("Dates", "7", "5b", run["follow_up"], "dates", "first and last patient, end of follow-up"),
        Item("Setting and centres", "7", "6a", run["sites"], "setting", "kind of care, number and places of centres"),
        Item("Eligibility", "8", "6b", run["left_out"], "eligibility", "who was included, who not"),
        Item("Treatments", "", "6c", "", "treatments", "what patients received, and when"),
        Item("Preparation of data", "9", "7", run["preparation"]),
        Item("Subsets of data", "10", "7", run["subsets"]),
        Item("De-identification", "11", "", run["identifiers"], "deidentification", "how, and who did it"),
        Item("Missing data", "12", "11", run["missing"]),
        Item("Acquisition of images", "13", "9b", run["images"], "acquisition", "scanners, sequences, contrast agent"),
        Item("Outcomes", "14, 15", "8a", run["outcomes"], "outcomes", "how each is defined, why so, and when assessed"),
        Item("Who assessed outcomes", "16, 17", "8b", "", "assessors", "how many, how trained, with what tools"),
        Item("Blinding of assessors", "", "8c", "", "blinding", "whether they knew what the model reads"),
        Item("Agreement between assessors", "18", "8b", "", "agreement", "within and between them"),
        Item("Predictors", "", "9a, 9b, 9c", run["inputs"], "predictors", "why these, and who measured them"),
        Item("Partitions, and at which level", "19, 20", "12a", run["partitions"]),
        Item("Sample size", "21", "10", run["size"], "sample_size", "how it was decided"),
        Item("How predictors are handled", "22", "12b", run["handling"]),
        Item("Model and training", "22, 25", "12c, 22", run["model"]),
        Item("Software", "23", "12c", run["software"]),
        Item("Initial weights", "24", "12c", run["initial"]),
        Item("Choice of the final model; ensembles", "26, 27", "12c, 12g", run["choice"]),
        Item("Differences between sites", "", "12d, 23b", run["clusters"]),
        Item("Metrics and their uncertainty", "28, 29", "12e", run["metrics"]),
        Item("Robustness", "30", "12e", run["robustness"]),
        Item("Explanations", "31", "", run["explanations"]),
        Item("Updating, recalibration", "", "12f, 24", run["updating"]),
        Item("Imbalance of classes", "", "13", run["imbalance"]),
        Item("Fairness", "", "14", run["fairness"], "fairness", "which groups were compared, and why these"),
        Item("Output", "", "15", run["output"]),
        Item("Training and evaluation compared", "", "16, 20c", run["compared"]),
        Item("Evaluation on internal data", "32", "12a", run["internal"]),
        Item("Evaluation on external data", "33", "16", run["external"], "external", "cohort and result, or `none`"),
        Item("Ethical approval, consent", "", "17", "", "ethics", "committee, number, consent or its waiver"),
        Item("Funding", "44", "18a", "", "funding", "who paid, and what part they took"),
        Item("Conflicts of interest", "", "18b", "", "conflicts", "of the authors, or `none`"),
        Item("Protocol", "42", "18c", "", "protocol", "where it can be read, or `none`"),
        Item("Registration", "34", "18d", "", "registration", "register and number, or `none`"),
        Item("Data for others", "43", "18e", "", "data", "where, for whom, or `not available`"),
        Item("Code and model for others", "43", "18f", run["code"]),
        Item("Patients and the public", "", "19", "", "public", "how they took part, or `not`"),
        Item("Flow of patients", "35", "20a, 21", run["flow"]),
        Item("Characteristics of patients", "36", "20b", run["characteristics"], "characteristics", "age, sex, stage"),
        Item("Performance", "37, 38", "23a", run["performance"]),
        Item("Failures", "39", "25", run["failures"], "failures", "on whom it is wrong, and why"),
        Item("Limits", "40", "26", run["limits"]),
        Item("Use in practice", "41", "27a, 27b, 27c", run["practice"], "practice", "who uses it, trained how"),
    ]


def keys() -> set[str]:
    """What about.yaml may answer."""
    return {item.key for item in items(defaultdict(str)) if item.key} | {"citation"}


def read_about(run: Path) -> dict[str, str]:
    """What whoever publishes has written; nothing where there is no file.

    Raises:
        ConfigError: It is no list of keys and texts, or has a key that no item has.
    """
    path = run / FILE
    if not path.is_file():
        return {}
    told: Any = parse(path.read_text(encoding="utf-8")) or {}
    if not isinstance(told, dict):
        raise ConfigError("is no list of keys and texts", where=str(path), fix="write lines such as `design: a trial`")
    for key, value in told.items():
        if key not in keys():
            raise ConfigError(f"no item has the key '{key}'", where=str(path), fix=nearest(str(key), keys()))
        if not isinstance(value, str | int | float):
            raise ConfigError(f"`{key}` is no text", where=str(path), fix="write one line of text")
    return {key: " ".join(str(value).split()).replace("|", "\\|") for key, value in told.items()}


def rows(run: Mapping[str, str], about: Mapping[str, str]) -> list[Sequence[str]]:
    """The table: item, where it stands in CLAIM and in TRIPOD+AI, answer."""
    return [[item.title, item.claim or "–", item.tripod or "–", item.answer(about)] for item in items(run)]
