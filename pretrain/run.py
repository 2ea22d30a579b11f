"""`chiasma pretrain`: a config and a cohort into a run folder, resumed where it stopped."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from foundation import hub
from foundation.cohort.manifest import FILE as COHORT_FILE
from foundation.cohort.staging import sha256_of
from foundation.cohort.store import PreparedCohort
from foundation.config import load_config
from foundation.data.alignment import Aligned, align
from foundation.data.dataset import CohortDataset, load
from foundation.data.preprocessing import Preprocessing
from foundation.data.randomness import permutation
from foundation.data.sampler import OnePass
from foundation.errors import ConfigError
from foundation.model import MultimodalConfig, MultimodalModel
from foundation.objective import FUSED
from foundation.tower import count_parameters
from pretrain import checkpoint
from pretrain.checkpoint import Position
from pretrain.config import HeldOut, PretrainConfig
from pretrain.engine import Run, train
from pretrain.evaluate import Embedded, embedding_map, evaluate, measure_space
from pretrain.monitor import Monitor
from pretrain.optim import build_optimiser
from pretrain.report import write_report
from pretrain.step import Pretraining


def pretrain(path: Path, overrides: Sequence[str] = ()) -> tuple[dict[str, Any], Path]:
    """Run a pretraining config to its end, from the newest checkpoint if there is one.

    Args:
        path: The YAML.
        overrides: ``key=value`` changes to it.

    Returns:
        The content of metrics.json, and the run folder.

    Raises:
        ConfigError, DataError: The config does not fit the cohort.
        CheckpointError: The run folder belongs to another run.
    """
    config = load_config(PretrainConfig, path, overrides)
    cohort = PreparedCohort(config.cohort)
    training, held_out = split(cohort, config.held_out, config.seed)
    aligned = align(Preprocessing.fit(cohort, training, config.preprocessing), cohort)
    _refuse_unpaired(aligned, training)
    run, evaluation = _build(config, aligned, training, held_out)
    position, problems = checkpoint.restore(
        run.folder / "checkpoints", _identity(config, cohort, training), run.module, run.optimiser
    )
    for problem in problems:
        run.accelerator.print(f"passed over a damaged checkpoint: {problem}")
    position = position or Position(0, 0, 0, _identity(config, cohort, training))
    run.monitor = _monitor(config, run, position)
    train(run, position)
    metrics = evaluation.final()
    _write(run, aligned, metrics, evaluation)
    return metrics, run.folder


def split(cohort: PreparedCohort, held_out: HeldOut, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on and rows to hold out; all records of a patient, or of a site, on one side.

    Raises:
        ConfigError: One side would be empty.
    """
    units = cohort.sites if held_out.by == "site" else cohort.patients
    names = np.unique(units.astype(str))
    order = permutation(seed, "held out", 0, len(names))
    chosen = names[order[: round(held_out.fraction * len(names))]]
    outside = np.isin(units.astype(str), chosen)
    if outside.all() or not outside.any():
        raise ConfigError(
            f"{len(names)} {held_out.by}s cannot be split with fraction {held_out.fraction:g}",
            where="held_out",
            fix="use another fraction, or `by: patient`",
        )
    return np.flatnonzero(~outside), np.flatnonzero(outside)


class Evaluation:
    """Embeds training and held-out records, and measures them.

    Args:
        config: Of the run.
        aligned: The cohort through the model's preprocessing.
        training, held_out: Rows.
        module: The model and its objectives.
        accelerator: Where to compute.
    """

    def __init__(
        self,
        config: PretrainConfig,
        aligned: Aligned,
        training: np.ndarray,
        held_out: np.ndarray,
        module: Pretraining,
        accelerator: Accelerator,
    ) -> None:
        self.config = config
        self.aligned = aligned
        self.training = training
        self.held_out = held_out
        self.module = module
        self.accelerator = accelerator
        names = [site.name for site in module.model.sites]
        omics = [site.name for site in module.model.sites if site.kind == "omics"]
        self.pairs = [(name, other) for name in names if name not in omics for other in omics]

    def patterns(self) -> dict[str, int]:
        """Modalities that training records have together, to their number."""
        present_BM, _ = self.aligned.presence(self.training)
        names = np.array(self.aligned.modalities, dtype=object)
        return dict(Counter("+".join(names[row]) or "none" for row in present_BM).most_common())

    def retrieval(self, step: int) -> dict[str, Any]:
        """Retrieval, alignment and uniformity of the held-out patients; quick enough for now and then."""
        del step
        embedded = self.embed(self.held_out)
        return measure_space(embedded, pairs=self.pairs, seed=self.config.seed, permutations=100)

    def final(self) -> dict[str, Any]:
        """Everything that metrics.json says of the embeddings."""
        kinds = {name: entry["kind"] for name, entry in self.aligned.cohort.manifest.endpoints.items()}
        return evaluate(
            self.embed(self.training),
            self.embed(self.held_out),
            pairs=self.pairs,
            endpoint_kinds=kinds,
            seed=self.config.seed,
            permutations=self.config.permutations,
        )

    @torch.no_grad()
    def embed(self, rows: np.ndarray) -> Embedded:
        """Embed records, nothing dropped and nothing augmented."""
        cohort = self.aligned.cohort
        was_training = self.module.training
        self.module.eval()
        dataset = CohortDataset(self.aligned, rows)
        loader = load(dataset, OnePass(rows, self.config.batch_size))
        z: dict[str, list[np.ndarray]] = {}
        present: dict[str, list[np.ndarray]] = {}
        for batch in loader:
            embeddings = self.module.model.embed(batch.to(self.accelerator.device))
            for name, values in embeddings.z.items():
                z.setdefault(name, []).append(values.float().cpu().numpy())
                present.setdefault(name, []).append(embeddings.present[name].cpu().numpy())
        self.module.train(was_training)
        return Embedded(
            patients=cohort.patients[rows].astype(str),
            sites=cohort.sites[rows].astype(str),
            groups=cohort.groups[rows].astype(str),
            views={name: np.concatenate(parts) for name, parts in z.items()},
            present={name: np.concatenate(parts) for name, parts in present.items()},
            endpoints={
                name: {part: values[rows] for part, values in cohort.endpoint(name).items()}
                for name in cohort.manifest.endpoints
            },
        )


def _refuse_unpaired(aligned: Aligned, training: np.ndarray) -> None:
    present_BM, _ = aligned.presence(training)
    if not (present_BM.sum(axis=1) > 1).any():
        raise ConfigError(
            f"none of {len(training)} training records has two modalities, so there is nothing to contrast",
            where="preprocessing.modalities",
            fix="use more modalities, or a cohort whose patients have several",
        )


def _identity(config: PretrainConfig, cohort: PreparedCohort, training: np.ndarray) -> dict[str, str]:
    """What must not change between the start of a run and its resumption."""
    patients = "\n".join(sorted(set(cohort.patients[training].astype(str))))
    return {
        "config": _hash(json.dumps(config.document(), sort_keys=True)),
        "cohort": sha256_of(cohort.path / COHORT_FILE),
        "training patients": _hash(patients),
    }


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _build(
    config: PretrainConfig, aligned: Aligned, training: np.ndarray, held_out: np.ndarray
) -> tuple[Run, Evaluation]:
    accelerator = Accelerator(mixed_precision="bf16" if config.precision == "bfloat16" else "no")
    torch.manual_seed(config.seed)
    model = MultimodalModel(MultimodalConfig.of(aligned.preprocessing, config.towers, config.fusion, config.width))
    module = Pretraining.of(config, model).to(accelerator.device)
    dataset = CohortDataset(
        aligned, training, seed=config.seed, dropout=config.dropout, augmentation=config.augmentation
    )
    evaluation = Evaluation(config, aligned, training, held_out, module, accelerator)
    config.out.mkdir(parents=True, exist_ok=True)
    (config.out / "config.yaml").write_text(config.to_yaml(), encoding="utf-8")
    run = Run(
        config=config,
        folder=config.out,
        steps=max(1, round(config.epochs * len(training) / config.batch_size)),
        dataset=dataset,
        module=module,
        optimiser=build_optimiser(module, config.optimiser),
        accelerator=accelerator,
        monitor=None,  # type: ignore[arg-type]
        evaluate=evaluation.retrieval,
    )
    return run, evaluation


def _monitor(config: PretrainConfig, run: Run, position: Position) -> Monitor:
    return Monitor(config.out / "metrics.jsonl", step=position.step, steps=run.steps, wandb=_start_wandb(config))


def _start_wandb(config: PretrainConfig) -> Any:
    if config.wandb is None:
        return None
    import wandb

    return wandb.init(
        project=config.wandb.project,
        mode=config.wandb.mode,
        dir=config.out,
        config=config.document(),
        name=config.out.name,
    )


def _write(run: Run, aligned: Aligned, metrics: dict[str, Any], evaluation: Evaluation) -> None:
    """Write metrics.json, the model folder, the map and the report."""
    cohort = aligned.cohort
    model = run.module.model
    seconds = sum(row["seconds"] for row in run.monitor.rows() if "seconds" in row)
    metrics.update(
        cohort=cohort.manifest.name,
        patterns_seen=evaluation.patterns(),
        parameters={name: count_parameters(tower)["total"] for name, tower in model.towers.items()},
        seconds=round(seconds, 1),
        versions={name: importlib.metadata.version(name) for name in ("chiasma", "torch", "transformers", "timm")},
    )
    classes = {name: list(entry["classes"]) for name, entry in cohort.manifest.endpoints.items() if "classes" in entry}
    drawn = embedding_map(evaluation.embed(evaluation.held_out), FUSED, classes=classes)
    _write_json(run.folder / "embedding_map.json", drawn)
    hub.write(run.folder / "model", model, aligned.preprocessing, _card(run.config, cohort, metrics))
    _write_json(run.folder / "metrics.json", metrics)
    write_report(run.folder)


def _write_json(path: Path, document: Any) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    partial.replace(path)


def _card(config: PretrainConfig, cohort: PreparedCohort, metrics: dict[str, Any]) -> str:
    """README.md of the model folder."""
    lines = [
        f"# {config.out.name}",
        "",
        (
            f"A chiasma model pretrained on the cohort `{cohort.manifest.name}` ({cohort.manifest.patients} patients, "
            f"{config.held_out.fraction:.0%} of {config.held_out.by}s held out). Research use only."
        ),
        "",
        "| held-out retrieval | n | recall@10 | chance | p |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {name} | {found['n']} | {found['recall@10']:.3f} | {found['chance@10']:.3f} | {found['p_value']:.4f} |"
        for name, found in metrics["retrieval"].items()
        if "recall@10" in found
    ]
    return "\n".join([*lines, ""])
