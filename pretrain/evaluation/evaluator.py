"""The evaluation of a run's model: training and held-out records embedded; retrieval, probes and space measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np

from foundation.collectives import rank
from foundation.data.alignment import Aligned
from foundation.data.dataset import CohortDataset
from foundation.data.sample import sample
from foundation.model.embedding import embed
from foundation.model.multimodal import MultimodalModel
from foundation.model.view import FUSED
from foundation.progress import Progress
from foundation.training.parallel.base import Parallel
from pretrain.config import PretrainConfig
from pretrain.evaluation.embedded import Embedded
from pretrain.evaluation.evaluate import evaluate
from pretrain.evaluation.space import embedding_map, measure_space

MOST_RECORDS = 10_000
"""Training records, and held-out ones, that are embedded; of more, a sample. Fewer still are measured."""


class Evaluator:
    """Embeds training and held-out records, and measures them.

    Processes share the embedding, so every one calls each method; the first measures, the others get nothing.

    Args:
        config: Of the run.
        aligned: The cohort through the model's preprocessing.
        training, held_out: Rows.
        model: What to measure.
        progress: Hears how many records are embedded.
        parallel: How processes share the model.
    """

    def __init__(
        self,
        config: PretrainConfig,
        aligned: Aligned,
        training: np.ndarray,
        held_out: np.ndarray,
        model: MultimodalModel,
        progress: Progress,
        parallel: Parallel,
    ) -> None:
        self.config = config
        self.aligned = aligned
        self.training = training
        self.held_out = held_out
        self.model = model
        self.progress = progress
        self.parallel = parallel
        images = [spec.name for spec in model.specs if spec.kind == "image"]
        omics = [spec.name for spec in model.specs if spec.kind == "omics"]
        self.pairs = [(name, other) for name in images for other in omics]
        if not images:
            alone = [name for spec in model.specs for name in spec.modalities]
            self.pairs = list(combinations(alone, 2))

    def patterns(self) -> dict[str, int]:
        """Modalities that training records have together, to their number."""
        present_BM, _ = self.aligned.presence(self.training)
        names = np.array(self.aligned.modalities, dtype=object)
        return dict(Counter("+".join(names[row]) or "none" for row in present_BM).most_common())

    def retrieval(self) -> dict[str, Any]:
        """Retrieval, alignment and uniformity of the held-out patients, quick enough for now and then."""
        embedded = self.embed(self.held_out, "embedding held-out patients")
        if rank() > 0:
            return {}
        return measure_space(embedded, pairs=self.pairs, seed=self.config.seed, permutations=100)

    def before_training(self) -> dict[str, Any]:
        """What the model can do where it starts: recall@10, and each probe of each view. What training has to beat."""
        metrics, _ = self._measure(permutations=100)
        if not metrics:
            return {}
        return {
            "retrieval": {name: found.get("recall@10") for name, found in metrics["retrieval"].items()},
            "probes": {
                endpoint: {view: result.get("value") for view, result in views.items()}
                for endpoint, views in {**metrics["probes"], "site": metrics["site_probe"]}.items()
            },
        }

    def final(self, before: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Everything that metrics.json says of the embeddings, and the map of the held-out patients.

        Args:
            before: What `before_training` gave when the run began; stands beside each result.
        """
        metrics, held_out = self._measure(self.config.permutations)
        if not metrics:
            return {}, {}
        for name, found in metrics["retrieval"].items():
            found["before_training"] = before["retrieval"].get(name)
        for endpoint, views in {**metrics["probes"], "site": metrics["site_probe"]}.items():
            for view, result in views.items():
                result["before_training"] = before["probes"].get(endpoint, {}).get(view)
        endpoints = self.aligned.cohort.manifest.endpoints
        classes = {name: list(entry["classes"]) for name, entry in endpoints.items() if "classes" in entry}
        return metrics, embedding_map(held_out, FUSED, classes=classes)

    def _measure(self, permutations: int) -> tuple[dict[str, Any], Embedded]:
        training = self.embed(self.training, "embedding training patients") if self.config.probes else None
        held_out = self.embed(self.held_out, "embedding held-out patients")
        if rank() > 0:
            return {}, held_out
        if training is None:
            space = measure_space(held_out, pairs=self.pairs, seed=self.config.seed, permutations=permutations)
            return {**space, "probes": {}, "site_probe": {}}, held_out
        endpoints = self.aligned.cohort.manifest.endpoints
        metrics = evaluate(
            training,
            held_out,
            pairs=self.pairs,
            endpoint_kinds={name: entry["kind"] for name, entry in endpoints.items()},
            seed=self.config.seed,
            permutations=permutations,
        )
        return metrics, held_out

    def embed(self, rows: np.ndarray, label: str) -> Embedded:
        """Embed records, nothing dropped and nothing augmented.

        Args:
            rows: Of the cohort.
            label: What `progress` calls it.
        """
        cohort, size = self.aligned.cohort, self.config.batch_size
        rows = sample(cohort, rows, MOST_RECORDS)
        data = CohortDataset(self.aligned, rows)
        # Records need different numbers of passes through a block, so that blocks cannot be gathered one by one.
        with self.parallel.whole(self.model):
            found = embed(self.model, data, rows, batch_size=size, progress=self.progress, label=label)
        return Embedded(
            patients=cohort.patients[rows].astype(str),
            sites=cohort.sites[rows].astype(str),
            groups=cohort.groups[rows].astype(str),
            views={name: z_ND.cpu().numpy() for name, z_ND in found.z.items()},
            present={name: present_N.cpu().numpy() for name, present_N in found.present.items()},
            endpoints={
                name: {part: values[rows] for part, values in cohort.endpoint(name).items()}
                for name in cohort.manifest.endpoints
            },
        )
