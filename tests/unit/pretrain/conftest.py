"""Made-up embeddings of patients with planted endpoints."""

from __future__ import annotations

import numpy as np
import pytest

from pretrain.evaluation.embedded import Embedded


@pytest.fixture(scope="session")
def make():
    """Makes records whose views share a latent that also decides the endpoints, as far as `signal` lets it."""

    def build(patients, tag, *, signal=1.0, records=1, groups=("",), width=12, seed=0, absent=0.0):
        random = np.random.default_rng([seed, len(tag), ord(tag[0])])
        of_patient = np.repeat(np.arange(patients), records)
        latent = random.standard_normal((patients, 4))
        views, present = {}, {}
        for position, view in enumerate(("mri", "rna", "fused")):
            mix = np.random.default_rng(position).standard_normal((4, width)) if view == "fused" else np.eye(4, width)
            x = signal * 3 * latent[of_patient] @ mix + random.standard_normal((len(of_patient), width))
            views[view] = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
            present[view] = random.random(len(of_patient)) >= absent
        died, lost = random.exponential(np.exp(-latent[:, 0]) * 100), random.exponential(200, patients)
        endpoints = {
            "subtype": {"code": np.where(np.arange(patients) % 11 == 5, -1, latent[:, :3].argmax(axis=1))},
            "response": {"code": np.digitize(latent[:, 1], [-0.7, 0.0, 0.7])},
            "os": {"time": np.ceil(np.minimum(died, lost)), "event": (died <= lost).astype(float)},
            "age": {"value": 60 + 5 * latent[:, 2]},
        }
        return Embedded(
            patients=np.array([f"SECRET-{tag}{number:03d}" for number in of_patient]),
            sites=np.array([f"hospital {number % 3}" for number in of_patient]),
            groups=np.array([groups[number % len(groups)] for number in of_patient]),
            views=views,
            present=present,
            endpoints={
                name: {part: values[of_patient] for part, values in parts.items()} for name, parts in endpoints.items()
            },
        )

    return build


KINDS = {"subtype": "subtype", "response": "response", "os": "survival", "age": "regression"}


@pytest.fixture(scope="session")
def kinds():
    return KINDS
