"""`chiasma pretrain`: a config and a cohort into a run folder, resumed where it stopped."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from foundation.cohort.united import own_names
from foundation.collectives import of_first, rank, share_from_first
from foundation.config import load_config
from foundation.data.alignment import Aligned, align
from foundation.data.dataset import CohortDataset
from foundation.data.order import measure_mixing
from foundation.data.sampler import BatchKey
from foundation.data.scaling import fit_preprocessing
from foundation.errors import ConfigError
from foundation.files.identity import hashes_of
from foundation.files.lock import claimed_run, refuse_foreign
from foundation.files.whole import write_json
from foundation.model import model_folder
from foundation.model.layers.running import compiled, recomputed
from foundation.model.multimodal import MultimodalConfig, MultimodalModel
from foundation.model.seen_patients import SeenPatients
from foundation.model.towers.base import count_parameters
from foundation.objectives.contrastive.pairs import PairwiseObjective
from foundation.progress import Progress, Silent
from foundation.randomness import generator
from foundation.training.agreement import all_or_none, refuse_disagreement
from foundation.training.checkpoint import Checkpoints, Position, State
from foundation.training.parallel.base import Parallel
from foundation.training.parallel.strategies import parallel_of
from foundation.training.processes import process_group
from foundation.training.update import Updater
from pretrain import tracking
from pretrain.cohorts import open_cohorts, refuse_unreadable
from pretrain.config import PretrainConfig
from pretrain.drawing import Drawing
from pretrain.engine import Run, train
from pretrain.evaluation.evaluator import Evaluator
from pretrain.identity import identify
from pretrain.init import MOST_RECORDS, initialise
from pretrain.monitor import Monitor, Unheard
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

    Started in several processes, as torchrun does, they share the work; the first writes and speaks.

    Args:
        path: The YAML.
        overrides: ``key=value`` changes to it.
        progress: Hears of what takes long beside the training itself.

    Returns:
        The content of metrics.json, of the first process; and the run folder.

    Raises:
        ConfigError, DataError: The config does not fit the cohort, or another process trains in the run folder.
        CheckpointError: The run folder belongs to another run.
        Stopped: Somebody asked the run to stop; it goes on when it is started again.
    """
    with process_group(), contextlib.ExitStack() as held:
        with all_or_none():
            made = _make(load_config(PretrainConfig, path, overrides))
            config, pretraining, parallel = made.config, made.pretraining, made.parallel
        refuse_disagreement({**hashes_of(config.model_dump(mode="json")), **made.identity})
        with all_or_none():
            if rank() == 0:
                held.enter_context(claimed_run(config.out, doing="is being trained in"))
        share_from_first([*pretraining.parameters(), *pretraining.buffers()])
        state = State(Updater(pretraining, config.optimiser, parallel, config.ema))
        if progress is None or rank() > 0:
            progress = Silent()
        evaluation = Evaluator(
            config, made.aligned, made.training, made.held_out, pretraining.model, progress, parallel
        )
        before = _before_training(config.out / BEFORE, evaluation, made.identity)
        checkpoints = Checkpoints(config.out / "checkpoints", config.keep_checkpoints)
        position = _restore(checkpoints, config.seed, made.identity, state)
        steps = max(1, round(config.epochs * len(made.training) / config.samples_per_step))
        with contextlib.closing(_monitor(config, position.step, steps)) as monitor:
            run = Run(
                config,
                steps,
                made.dataset,
                made.drawing,
                pretraining,
                state,
                parallel,
                checkpoints,
                monitor,
                evaluation.retrieval,
            )
            train(run, position)
            with state.updater.averaged():
                return _write(run, evaluation, before), config.out


class _Made(NamedTuple):
    """What every process makes of a config by itself, before processes work together."""

    config: PretrainConfig
    aligned: Aligned
    training: np.ndarray
    held_out: np.ndarray
    dataset: CohortDataset
    pretraining: Pretraining
    drawing: Drawing
    parallel: Parallel
    identity: dict[str, str]


def _make(config: PretrainConfig) -> _Made:
    """Read the cohort and build the model, refusing what does not fit."""
    config = config.model_copy(update={"towers": {name: tower.pinned() for name, tower in config.towers.items()}})
    refuse_foreign(config.out, BEFORE)
    cohort = open_cohorts(config)
    training, held_out = split(cohort, config.held_out, config.seed)
    aligned = align(fit_preprocessing(cohort, training, config.preprocessing), cohort)
    refuse_unreadable(cohort, aligned.preprocessing)
    parallel = parallel_of(config.strategy, config.precision)
    dataset = CohortDataset(
        aligned, training, seed=config.seed, dropout=config.dropout, augmentation=config.augmentation
    )
    pretraining = _build(config, aligned, parallel.device)
    _tell_weights(pretraining.model)
    drawing = Drawing.of(config, aligned, training, pretraining.objectives.values())  # type: ignore[arg-type]
    _tell_mixing(config, dataset, drawing, parallel)
    _finish(config, pretraining.model, aligned, drawing)
    pretraining.freeze_what_no_view_asks_for(dataset.__getitems__(BatchKey(training[:2], np.zeros(2, np.int64))))
    _refuse_unpaired(pretraining, aligned, training)
    identity = identify(config, cohort, training)
    return _Made(config, aligned, training, held_out, dataset, pretraining, drawing, parallel, identity)


def _monitor(config: PretrainConfig, step: int, steps: int) -> Monitor:
    """The log, and the config beside it; of the first process."""
    if rank() > 0:
        return Unheard()
    (config.out / "config.yaml").write_text(config.to_yaml(), encoding="utf-8")
    return Monitor(config.out / "metrics.jsonl", step=step, steps=steps, wandb=tracking.start(config))


def _before_training(path: Path, evaluation: Evaluator, identity: dict[str, str]) -> dict[str, Any]:
    """What the model can do before it is trained; measured when a run begins, and kept beside it."""
    known = of_first(lambda: json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {})
    if known.get("identity") != identity:
        known = {"identity": identity, **evaluation.before_training()}
        if rank() == 0:
            write_json(path, known)
    return known


def _restore(checkpoints: Checkpoints, seed: int, identity: dict[str, str], state: State) -> Position:
    """Load the newest checkpoint into `state`; where it is, or the start."""
    if rank() > 0:
        # Processes draw dropout for different records.
        torch.manual_seed(int(generator(seed, "dropout", str(rank()), 0).integers(2**63)))
    position, problems = checkpoints.restore(identity, state)
    for problem in problems if rank() == 0 else ():
        print(f"passed over a damaged checkpoint: {problem}")
    return position or Position(0, 0, 0, identity)


def _build(config: PretrainConfig, aligned: Aligned, device: torch.device) -> Pretraining:
    """A model with random weights, and its objectives."""
    torch.manual_seed(config.seed)
    described = aligned.preprocessing.described()
    model = MultimodalModel(MultimodalConfig.of(described, config.towers, config.fusion, config.width))
    return Pretraining.of(config, model).to(device)


def _finish(config: PretrainConfig, model: MultimodalModel, aligned: Aligned, drawing: Drawing) -> None:
    """Make a model what it is as the run begins: its initial weights, and how its blocks are run."""
    if config.init == "cohort":
        rows = drawing.first(config, MOST_RECORDS)
        initialise(model, aligned, rows, batch_size=config.batch_size, factors=config.factors)
    for block in model.blocks():
        if config.compile:
            compiled(block)
        if config.activation_checkpointing:
            recomputed(block)


def _tell_weights(model: MultimodalModel) -> None:
    """Say what became of weights that towers begin with."""
    for name, tower in model.towers.items() if rank() == 0 else ():
        if tower.weights is not None:
            print(f"{name} tower: {tower.weights.summary()}", flush=True)  # type: ignore[union-attr]


def _tell_mixing(config: PretrainConfig, dataset: CohortDataset, drawing: Drawing, parallel: Parallel) -> None:
    """Say how well an order in blocks mixes."""
    if config.order.shuffle == "blocks" and parallel.rank == 0:
        drawn = drawing.order(config).key(0, len(dataset)).rows
        shard_of_N = dataset.cohort.shards_of(dataset.rows)
        mixing = measure_mixing(shard_of_N, np.searchsorted(dataset.rows, drawn), config.batch_size)
        print(f"order in blocks: {mixing.sentence()}", flush=True)
        opened, most = min(config.order.open_shards, len(np.unique(shard_of_N))), dataset.cohort.shards_at_a_time
        if dataset.cohort.remote and opened > 2 * most:
            print(
                f"the cache has room for about {4 * most} shards of each cohort; with {opened} open it fetches some "
                "several times: raise cache.gigabytes",
                flush=True,
            )


def _refuse_unpaired(module: Pretraining, aligned: Aligned, training: np.ndarray) -> None:
    """Refuse contrastive objectives where no patient has both sides of any pair, in any batch."""
    present_BM, _ = aligned.presence(training)
    patients = aligned.cohort.patient_numbers[training]
    for name, objective in module.objectives.items():
        if isinstance(objective, PairwiseObjective) and not any(
            objective.paired(present_BM, aligned.modalities, patients).values()
        ):
            raise ConfigError(
                f"none of {aligned.cohort.count_patients(training)} training patients has both sides of any pair, "
                "so there is nothing to compare",
                where=f"objectives.{name}",
                fix="use more modalities, or a cohort whose patients have several",
            )


def _write(run: Run, evaluation: Evaluator, before: dict[str, Any]) -> dict[str, Any]:
    """Write metrics.json, the model folder, the map and the report; returns the metrics. Every process calls this."""
    cohort, out = evaluation.aligned.cohort.manifest, run.config.out
    metrics, drawn = evaluation.final(before)
    weights = run.parallel.weights(evaluation.model)
    if rank() > 0:
        return {}
    metrics.update(
        cohort=cohort.name,
        patterns_seen=evaluation.patterns(),
        parameters={name: count_parameters(tower)["total"] for name, tower in evaluation.model.towers.items()},
        seconds=round(sum(row.get("seconds", 0) for row in run.monitor.rows()), 1),
        versions={name: importlib.metadata.version(name) for name in ("chiasma", "torch", "transformers", "timm")},
    )
    if origins := evaluation.model.config.origins:
        metrics["initial_weights"] = origins
    if len(run.drawing.strata) > 1:
        metrics["cohorts"] = run.drawing.table(run.steps * run.config.samples_per_step)
    write_json(out / "embedding_map.json", drawn)
    seen = SeenPatients.of(own_names(evaluation.aligned.cohort)[evaluation.training])
    words = card(run.config, cohort, evaluation.aligned.cohort.count_patients(evaluation.held_out), metrics)
    model_folder.write(out / "model", evaluation.model, evaluation.aligned.preprocessing, words, seen, weights)
    write_json(out / "metrics.json", metrics)
    write_report(out)
    return metrics
