"""`chiasma pretrain`: a config and a cohort into a run folder, resumed where it stopped."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from foundation.cohort.store import PreparedCohort
from foundation.config import load_config
from foundation.data.alignment import Aligned, align
from foundation.data.dataset import CohortDataset
from foundation.data.order import measure_mixing
from foundation.data.sampler import BatchKey
from foundation.data.scaling import fit_preprocessing
from foundation.errors import ConfigError
from foundation.files.lock import claimed_run, refuse_foreign
from foundation.files.whole import write_json
from foundation.hub import model_folder
from foundation.hub.seen_patients import SeenPatients
from foundation.model.layers.running import compiled, recomputed
from foundation.model.multimodal import MultimodalConfig, MultimodalModel
from foundation.model.towers.base import count_parameters
from foundation.objectives.contrastive.pairs import PairwiseObjective
from foundation.progress import Progress, Silent
from foundation.training import checkpoint
from foundation.training.checkpoint import Position, State
from foundation.training.parallel import Parallel
from foundation.training.update import Updater
from pretrain import tracking
from pretrain.config import PretrainConfig
from pretrain.engine import Run, train
from pretrain.evaluation.evaluator import Evaluator
from pretrain.identity import identify
from pretrain.init import initialise
from pretrain.monitor import Monitor
from pretrain.report.card import card
from pretrain.report.page import write_report
from pretrain.split import split
from pretrain.step import Pretraining

BEFORE = "before_training.json"
"""What the model could do before training; every run leaves it when it begins."""


def pretrain(
    path: Path, overrides: Sequence[str] = (), progress: Progress | None = None
) -> tuple[dict[str, Any], Path]:
    """Run a pretraining config to its end, from the newest checkpoint if there is one.

    Args:
        path: The YAML.
        overrides: ``key=value`` changes to it.
        progress: Hears of what takes long beside the training itself.

    Returns:
        The content of metrics.json, and the run folder.

    Raises:
        ConfigError, DataError: The config does not fit the cohort, or another process trains in the run folder.
        CheckpointError: The run folder belongs to another run.
    """
    config = load_config(PretrainConfig, path, overrides)
    refuse_foreign(config.out, BEFORE)
    cohort = PreparedCohort(config.cohort, cache=config.cache)
    training, held_out = split(cohort, config.held_out, config.seed)
    aligned = align(fit_preprocessing(cohort, training, config.preprocessing), cohort)
    parallel = Parallel(config.precision)
    dataset = CohortDataset(
        aligned, training, seed=config.seed, dropout=config.dropout, augmentation=config.augmentation
    )
    _tell_mixing(config, dataset, parallel)
    pretraining = _build(config, aligned, training, parallel.device)
    pretraining.freeze_what_no_view_asks_for(dataset.__getitems__(BatchKey(training[:2], np.zeros(2, np.int64))))
    _refuse_unpaired(pretraining, aligned, training)
    state = State(Updater(pretraining, config.optimiser, parallel, config.ema))
    evaluation = Evaluator(config, aligned, training, held_out, pretraining.model, progress or Silent())
    with claimed_run(config.out, doing="is being trained in"):
        identity = identify(config, cohort, training)
        before = _before_training(config.out / BEFORE, evaluation, identity)
        position = _restore(config, identity, state)
        (config.out / "config.yaml").write_text(config.to_yaml(), encoding="utf-8")
        steps = max(1, round(config.epochs * len(training) / config.samples_per_step))
        metrics_file, wandb = config.out / "metrics.jsonl", tracking.start(config)
        with contextlib.closing(Monitor(metrics_file, step=position.step, steps=steps, wandb=wandb)) as monitor:
            run = Run(config, config.out, steps, dataset, pretraining, state, parallel, monitor, evaluation.retrieval)
            train(run, position)
            with state.updater.averaged():
                return _write(run, evaluation, before), run.folder


def _before_training(path: Path, evaluation: Evaluator, identity: dict[str, str]) -> dict[str, Any]:
    """What the model can do before it is trained; measured when a run begins, and kept beside it."""
    if path.is_file():
        known = json.loads(path.read_text(encoding="utf-8"))
        if known.get("identity") == identity:
            return known
    known = {"identity": identity, **evaluation.before_training()}
    write_json(path, known)
    return known


def _restore(config: PretrainConfig, identity: dict[str, str], state: State) -> Position:
    """Load the newest checkpoint into `state`; where it is, or the start."""
    position, problems = checkpoint.restore(config.out / "checkpoints", identity, state)
    for problem in problems:
        print(f"passed over a damaged checkpoint: {problem}")
    return position or Position(0, 0, 0, identity)


def _build(config: PretrainConfig, aligned: Aligned, training: np.ndarray, device: torch.device) -> Pretraining:
    """The model and its objectives as the run begins."""
    torch.manual_seed(config.seed)
    described = aligned.preprocessing.described()
    model = MultimodalModel(MultimodalConfig.of(described, config.towers, config.fusion, config.width))
    pretraining = Pretraining.of(config, model).to(device)
    if config.init == "cohort":
        initialise(model, aligned, training, config.batch_size)
    for block in model.blocks():
        if config.compile:
            compiled(block)
        if config.activation_checkpointing:
            recomputed(block)
    return pretraining


def _tell_mixing(config: PretrainConfig, dataset: CohortDataset, parallel: Parallel) -> None:
    """Say how well an order in blocks mixes."""
    shard_of_N = dataset.cohort.shards_of(dataset.rows)
    shuffle = config.order.build(shard_of_N)
    if shuffle is not None and parallel.rank == 0:
        mixing = measure_mixing(shard_of_N, shuffle(config.seed, 0), config.batch_size)
        print(f"order in blocks: {mixing.sentence()}", flush=True)
        if dataset.cohort.remote and shuffle.open_shards > 2 * dataset.cohort.shards_at_a_time:
            print(
                f"the cache has room for about {4 * dataset.cohort.shards_at_a_time} shards; with "
                f"{shuffle.open_shards} open it fetches some several times: raise cache.gigabytes",
                flush=True,
            )


def _refuse_unpaired(module: Pretraining, aligned: Aligned, training: np.ndarray) -> None:
    """Refuse contrastive objectives where no patient has both sides of any pair, in any batch."""
    present_BM, _ = aligned.presence(training)
    patients = aligned.cohort.patients[training]
    for name, objective in module.objectives.items():
        if isinstance(objective, PairwiseObjective) and not any(
            objective.paired(present_BM, aligned.modalities, patients).values()
        ):
            raise ConfigError(
                f"none of {len(set(patients))} training patients has both sides of any pair, so there is nothing to "
                "compare",
                where=f"objectives.{name}",
                fix="use more modalities, or a cohort whose patients have several",
            )


def _write(run: Run, evaluation: Evaluator, before: dict[str, Any]) -> dict[str, Any]:
    """Write metrics.json, the model folder, the map and the report; returns the metrics."""
    cohort = evaluation.aligned.cohort.manifest
    metrics, drawn = evaluation.final(before)
    metrics.update(
        cohort=cohort.name,
        patterns_seen=evaluation.patterns(),
        parameters={name: count_parameters(tower)["total"] for name, tower in evaluation.model.towers.items()},
        seconds=round(sum(row.get("seconds", 0) for row in run.monitor.rows()), 1),
        versions={name: importlib.metadata.version(name) for name in ("chiasma", "torch", "transformers", "timm")},
    )
    write_json(run.folder / "embedding_map.json", drawn)
    patients = evaluation.aligned.cohort.patients
    seen = SeenPatients.of(patients[evaluation.training])
    words = card(run.config, cohort, len(set(patients[evaluation.held_out])), metrics)
    model_folder.write(run.folder / "model", evaluation.model, evaluation.aligned.preprocessing, words, seen)
    write_json(run.folder / "metrics.json", metrics)
    write_report(run.folder)
    return metrics
