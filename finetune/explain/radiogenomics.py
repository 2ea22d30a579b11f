"""Which genes and pathways a scan tells: omics values predicted, out of fold, from the image tower's embedding alone.

Ridge regression from the embedding to all features of a modality at once, patients in K folds, the penalty of each
feature by generalised cross-validation within the training folds. R² is out of fold, against the mean of the training
patients. Its p-value comes from patients in random order: the whole procedure is repeated, and every feature's R² is
compared with those of all features of its modality under all orders (they share patients and embedding, hence their
null distribution); then Benjamini and Hochberg's false discovery rate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from finetune.config import FROM_SCRATCH, FROZEN_PROBE, OURS
from finetune.explain.methods import Columns
from finetune.explain.pathways import SMALLEST
from finetune.kept_predictor import NETWORKS, KeptPredictor
from finetune.methods.modes import Frozen, Scratch
from finetune.predictor import MODEL, Predictor
from foundation.data.dataset import CohortDataset
from foundation.model.embedding import embed
from foundation.model.seen_patients import SeenPatients
from foundation.model.view import View
from foundation.progress import Progress, Silent
from foundation.wording import counted, listed

FOLDS = 5
PERMUTATIONS = 100
FEWEST_PATIENTS = 30
"""With both a scan and the modality."""

PENALTIES = 10.0 ** np.arange(-2, 5)
FDR = 0.05

COLUMNS = ["scan", "modality", "name", "patients", "r_squared", "p_value", "fdr"]


@dataclass(frozen=True)
class Radiogenomics:
    """What a scan tells.

    Attributes:
        features, pathways: Tables with `COLUMNS`, the best told first.
        sentences: What was done, or why nothing was.
    """

    features: pd.DataFrame = field(default_factory=lambda: _nothing())
    pathways: pd.DataFrame = field(default_factory=lambda: _nothing())
    sentences: tuple[str, ...] = ()


def radiogenomics(
    kept: KeptPredictor,
    run: Path,
    columns: Columns,
    rows: np.ndarray,
    sets: Mapping[str, Sequence[str]],
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> Radiogenomics:
    """Predict omics from scans.

    Args:
        kept: Whose image towers see.
        run: Its folder, which knows whom each network was taught by.
        columns: Features to predict.
        rows: Records, of which the first of each patient with a scan counts.
        sets: Gene sets; a pathway is the mean of its genes' standardised values.
        seed: Of folds and orders.
        progress: Told of permutations.
    """
    progress, cohort = progress or Silent(), columns.cohort
    name = next((name for name in (OURS, FROZEN_PROBE, FROM_SCRATCH) if name in kept.networks), None)
    if name is None:
        return Radiogenomics(sentences=("No network was kept, so there is no image tower to ask.",))
    predictor = kept.networks[name]
    model = predictor.adapted.model
    scans = {spec.name: View(spec.name) for spec in model.specs if spec.kind == "image"}
    if not scans:
        return Radiogenomics(sentences=("The kept network reads no scans.",))
    data = CohortDataset(predictor.align(cohort), stop_above=0.0)
    embedded = embed(model, data, rows, scans, progress=progress, label="embedding scans")
    features, pathways = [], []
    asked_of: dict[bool, list[str]] = {True: [], False: []}
    sentences = [f"Scans are seen by the network '{name}'."]
    taught_N = _taught(run, name, predictor, cohort.patients[rows])
    for scan in scans:
        here = np.flatnonzero(embedded.present[scan].cpu().numpy())
        # One record of each patient, so that no patient is on both sides of a fold.
        _, first = np.unique(cohort.patient_numbers[rows[here]], return_index=True)
        here = here[np.sort(first)]
        z_ND = embedded.z[scan].double().cpu().numpy()[here]
        for modality, at in columns.slices().items():
            values_NF = columns.values(rows[here])[:, at]
            both = np.flatnonzero(~np.isnan(values_NF).all(axis=1))
            new = both[~taught_N[here[both]]]
            # A tower that was taught to agree with a patient's omics says more of them than of anybody new.
            asked = new if len(new) >= FEWEST_PATIENTS else both
            if len(both) < FEWEST_PATIENTS:
                told = f"'{scan}' and '{modality}': {counted(len(both), 'patient')} with both, too few to ask."
                sentences.append(told)
                continue
            asked_of[len(asked) == len(new)].append(f"'{modality}'")
            told = _told(
                z_ND[asked], values_NF[asked], columns.names[at.start : at.stop], sets, seed, progress, modality
            )
            for table, into in zip(told, (features, pathways), strict=True):
                if len(table):
                    into.append(table.assign(scan=scan, modality=modality, patients=len(asked)))
    for new, whom in ((True, "who taught it nothing"), (False, "of whom some taught it, as the others are too few")):
        if asked_of[new]:
            sentences.append(f"Asked for {listed(list(dict.fromkeys(asked_of[new])))} are patients {whom}.")
    return Radiogenomics(_ranked(features), _ranked(pathways), tuple(sentences))


def _taught(run: Path, name: str, predictor: Predictor, patients: np.ndarray) -> np.ndarray:
    """[N] bool, patients who taught the image tower of a network; everybody, where it is not known."""
    config = predictor.adapted.config
    folders = [] if isinstance(config, Scratch) else [run / MODEL]
    if not isinstance(config, Frozen) or config.train:
        folders.append(run / NETWORKS[name])
    taught_N = np.zeros(len(patients), dtype=bool)
    for folder in folders:
        seen = SeenPatients.read(folder)
        taught_N |= True if seen is None else seen.among(patients)
    return taught_N


def _told(
    z_ND: np.ndarray,
    values_NF: np.ndarray,
    names: Sequence[str],
    sets: Mapping[str, Sequence[str]],
    seed: int,
    progress: Progress,
    modality: str,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Tables of features and of pathways: name, R² and p-value."""
    standard_NF = standardised(values_NF)
    varies = np.flatnonzero(standard_NF.any(axis=0)).tolist()
    place = {names[f]: k for k, f in enumerate(varies)}
    members = {name: [place[g] for g in dict.fromkeys(of) if g in place] for name, of in sets.items()}
    members = {name: at for name, at in members.items() if len(at) >= SMALLEST}
    means = [standard_NF[:, [varies[k] for k in at]].mean(axis=1) for at in members.values()]
    targets_NF = np.column_stack([standard_NF[:, varies], *means])
    progress.start(f"asking scans for {modality}", PERMUTATIONS, "orders")
    ridge = Ridge(z_ND, np.random.default_rng(seed))
    r_squared = ridge.r_squared(targets_NF)
    random, null = np.random.default_rng(seed + 1), []
    for _ in range(PERMUTATIONS):
        null.append(ridge.r_squared(targets_NF[random.permutation(len(targets_NF))]))
        progress.advance()
    progress.finish()
    tables, null_RF = [], np.stack(null)
    for here, labels in ((slice(0, len(varies)), [names[f] for f in varies]), (slice(len(varies), None), [*members])):
        known = np.sort(null_RF[:, here].reshape(-1))
        above = len(known) - np.searchsorted(known, r_squared[here], side="left")
        p_values = (1 + above) / (1 + len(known))
        tables.append(pd.DataFrame({"name": labels, "r_squared": r_squared[here], "p_value": p_values}))
    return tables[0], tables[1]


def standardised(values_NF: np.ndarray) -> np.ndarray:
    """Of mean 0 and variance 1; 0 where not observed, and where a feature never varies."""
    observed_NF = ~np.isnan(values_NF)
    count_F = np.maximum(observed_NF.sum(axis=0), 1)
    x_NF = np.nan_to_num(values_NF).astype(np.float64)
    x_NF = np.where(observed_NF, x_NF - x_NF.sum(axis=0) / count_F, 0.0)
    scale_F = np.sqrt((x_NF**2).sum(axis=0) / count_F)
    return x_NF / np.where(scale_F > 1e-6, scale_F, np.inf)


class Ridge:
    """Ridge regressions from one set of inputs, factored once for every fold, to any targets.

    Args:
        x_ND: Inputs of patients.
        random: Deals patients to folds.
    """

    def __init__(self, x_ND: np.ndarray, random: np.random.Generator) -> None:
        fold_N = random.permutation(np.arange(len(x_ND)) % FOLDS)
        self._folds = []
        for k in range(FOLDS):
            train, test = np.flatnonzero(fold_N != k), np.flatnonzero(fold_N == k)
            center_D = x_ND[train].mean(axis=0)
            u_ND, s_D, vt_DD = np.linalg.svd(x_ND[train] - center_D, full_matrices=False)
            keep = s_D > 1e-9 * s_D.max(initial=1e-30)
            u_ND, s_D, vt_DD = u_ND[:, keep], s_D[keep], vt_DD[keep]
            self._folds.append((train, test, u_ND, s_D, (x_ND[test] - center_D) @ vt_DD.T))

    def r_squared(self, y_NF: np.ndarray) -> np.ndarray:
        """[F] out of fold, against the mean of the patients who were fitted."""
        error_F, whole_F = np.zeros(y_NF.shape[1]), np.zeros(y_NF.shape[1])
        for train, test, u_ND, s_D, projected_ND in self._folds:
            mean_F = y_NF[train].mean(axis=0)
            centred_NF = y_NF[train] - mean_F
            uy_DF = u_ND.T @ centred_NF
            penalty_F = _penalties(uy_DF, (centred_NF**2).sum(axis=0), s_D, len(train))
            weights_DF = uy_DF * s_D[:, None] / (s_D[:, None] ** 2 + penalty_F)
            error_F += ((y_NF[test] - mean_F - projected_ND @ weights_DF) ** 2).sum(axis=0)
            whole_F += ((y_NF[test] - mean_F) ** 2).sum(axis=0)
        return 1 - error_F / np.maximum(whole_F, 1e-12)


def _penalties(uy_DF: np.ndarray, square_F: np.ndarray, s_D: np.ndarray, count: int) -> np.ndarray:
    """[F] the penalty of each target with the least generalised cross-validation error."""
    mean_square = (s_D**2).mean() if len(s_D) else 1.0
    penalties = PENALTIES * mean_square
    errors = []
    for penalty in penalties:
        shrunk_D = s_D**2 / (s_D**2 + penalty)
        residual_F = square_F - ((2 * shrunk_D - shrunk_D**2)[:, None] * uy_DF**2).sum(axis=0)
        # The mean takes one degree of freedom too.
        errors.append(residual_F / (1 - (shrunk_D.sum() + 1) / count) ** 2 if shrunk_D.sum() + 1 < count else np.inf)
    return penalties[np.argmin([np.broadcast_to(error, square_F.shape) for error in errors], axis=0)]


def _nothing() -> pd.DataFrame:
    return pd.DataFrame({column: [] for column in COLUMNS})


def _ranked(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """All tables in one, the false discovery rate over all of them, the best told first."""
    if not tables:
        return _nothing()
    found = pd.concat(tables, ignore_index=True)
    found["fdr"] = stats.false_discovery_control(found["p_value"])
    return found.sort_values(["r_squared", "name"], ascending=[False, True]).reset_index(drop=True).loc[:, COLUMNS]
