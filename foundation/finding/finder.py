"""Finds regions in images as they were drawn on others: a small network on what surrounds each voxel, cross-fitted.

Several networks are learned, each without a share of the patients, and everybody is read by the one that leaves out
the share that he belongs to by the hash of his name. So no drawing of a patient has a part in what is found in his own
image, and training patients and new ones are read alike: of the networks none is better for the one than for the
other. Heads that learn on what is found see in training what they will see later.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional

from foundation.cohort.store import PreparedCohort
from foundation.config import Config
from foundation.data.alignment import Aligned, unscaled
from foundation.errors import CheckpointError, ConfigError
from foundation.finding import surroundings as around
from foundation.finding.description import describe, features_of
from foundation.finding.surroundings import Surroundings, surroundings
from foundation.modality import ImageForm, ImageModality
from foundation.progress import Progress, Silent
from foundation.randomness import generator

SHARES = 4
"""Of the patients; as many networks."""

FEWEST = 8
"""Training patients with a drawing, for a network to learn from each time."""

INSIDE, OUTSIDE = 750, 1500
"""Voxels of an image that are learned from, at most, within a region and elsewhere."""

WIDTH, EPOCHS, VOXELS, RATE, DECAY = 64, 12, 2048, 3e-3, 1e-2
"""Of the hidden layers; passes over the voxels; voxels of a step; learning rate and weight decay of AdamW."""

SMOOTH = 1.5
"""Standard deviation, in voxels of the finest axis, by which what is found is smoothed."""

AXES = "xyz"

FOUND_PREFIX = "found_"
"""What the names of modalities begin with that describe what is found."""


class Document(Config):
    """What is kept of a finder beside its tensors.

    Attributes:
        annotation: Whose drawings were learned from.
        image: Name of the image modality.
        form: Of the images.
        mirror: Axes along which both sides of the body are alike.
        regions: In the order of the axis R.
        patients: With a drawing, that were learned from.
    """

    annotation: str
    image: str
    form: ImageModality
    mirror: list[str]
    regions: list[str]
    patients: int


@dataclass(frozen=True, eq=False)
class Finder:
    """What was learned; an instance reads any cohort with such images.

    Attributes:
        document: What it is of.
        tensors: Means and scales of what surrounds a voxel, weights and biases, each with a leading axis of `SHARES`.
    """

    document: Document
    tensors: Mapping[str, Tensor]

    @classmethod
    def learn(
        cls, cohort: PreparedCohort, annotation: str, rows: np.ndarray, seed: int, progress: Progress | None = None
    ) -> Finder:
        """Learn from the drawings on images of some records.

        Args:
            cohort: The prepared cohort.
            annotation: Of the cohort.
            rows: Training records; those without an image or a drawing teach nothing.
            seed: Of the run.
            progress: Told of images.

        Raises:
            ConfigError: Too few of them have a drawing.
        """
        entry = cohort.annotation_entry(annotation)
        rows = rows[cohort.annotated_NR(annotation, rows).any(axis=1) & _has(cohort, entry.image, rows)]
        shares_N = shares_of(cohort.patients[rows])
        image = cohort.image(entry.image)
        document = Document(
            annotation=annotation,
            image=entry.image,
            form=ImageModality(channels=[*image.channels], **{k: getattr(image, k) for k in ImageForm.model_fields}),
            mirror=[axis for axis in image.mirror if axis in AXES[: len(image.shape)]],
            regions=list(entry.regions),
            patients=cohort.count_patients(rows) if len(rows) else 0,
        )
        for share in range(SHARES):
            if len(set(cohort.patients[rows[shares_N != share]])) < FEWEST:
                raise ConfigError(
                    f"too few training patients ({document.patients}) have a drawing of '{annotation}' to find it",
                    where="find",
                    fix="leave it out, or annotate more images",
                )
        empty = cls(document, {})
        reader = unscaled(cohort, entry.image, document.form)
        progress = progress or Silent()
        progress.start(f"learning to find '{annotation}'", len(rows), "images")
        parts = []
        for row in rows.tolist():
            parts.append(empty._voxels(reader, row, seed))
            progress.advance()
        progress.finish()
        sizes = [len(x_VF) for x_VF, *_ in parts]
        x_VF, y_VR, weight_VR = (torch.from_numpy(np.concatenate(values)) for values in zip(*parts, strict=True))
        share_V = torch.from_numpy(np.repeat(shares_N, sizes))
        nets = [_fit(x_VF[share_V != k], y_VR[share_V != k], weight_VR[share_V != k], seed + k) for k in range(SHARES)]
        return cls(document, {name: torch.stack([net[name] for net in nets]) for name in nets[0]})

    @property
    def name(self) -> str:
        """Of the modality that describes what is found."""
        return f"{FOUND_PREFIX}{self.document.annotation}"

    @property
    def features(self) -> list[str]:
        """Names of what `described` gives."""
        return features_of(self.document.regions, self.document.form.channels, len(self.document.form.shape))

    def found(self, cohort: PreparedCohort, row: int) -> np.ndarray:
        """[R, *shape] float32 from 0 to 1: how surely each voxel of a record's image is of each region."""
        reader = unscaled(cohort, self.document.image, self.document.form)
        seen, _ = self._read(reader, row)
        return self._map(seen, self._share(cohort, row))

    def described(self, cohort: PreparedCohort, rows: np.ndarray, progress: Progress | None = None) -> np.ndarray:
        """[N, F] float32 what is found in the images of records in numbers; NaN where there is no image or channel.

        Raises:
            DataError: The images were prepared otherwise than those that were learned from.
        """
        values_NF = np.full((len(rows), len(self.features)), np.nan, dtype=np.float32)
        here = np.flatnonzero(_has(cohort, self.document.image, rows))
        reader = unscaled(cohort, self.document.image, self.document.form)
        progress = progress or Silent()
        progress.start(f"finding '{self.document.annotation}'", len(here), "images")
        for n in here.tolist():
            seen, acquired_C = self._read(reader, int(rows[n]))
            if acquired_C.any() and seen.tissue_XYZ.any():
                found_RXYZ = self._map(seen, self._share(cohort, int(rows[n])))
                z_VC = seen.x_VF[:, :: self._per_channel][:, : len(acquired_C)]
                values_NF[n] = describe(found_RXYZ, z_VC, acquired_C, seen.tissue_XYZ)
            progress.advance()
        progress.finish()
        return values_NF

    @property
    def _per_channel(self) -> int:
        return around.count(1, 0, self._mirrored) - 1

    @property
    def _mirrored(self) -> list[int]:
        return [AXES.index(axis) for axis in self.document.mirror]

    @property
    def _width(self) -> list[float]:
        """Of each axis, how many of its voxels are as long as one of the finest."""
        form = self.document.form
        if isinstance(form.spacing, tuple):
            return [min(form.spacing) / spacing for spacing in form.spacing]
        # Nobody knows how far slices are apart; a field of view is about as high as it is wide.
        return [size / max(form.shape) for size in form.shape]

    def _read(self, reader: Aligned, row: int) -> tuple[Surroundings, np.ndarray]:
        """What surrounds the voxels of an image, and [C] which channels it has."""
        form = self.document.form
        _, channels = reader.presence(np.array([row]))
        acquired_C = channels[self.document.image][0]
        x_CXYZ = torch.zeros(len(form.channels), *form.shape)
        if acquired_C.any():
            reader.read_image(self.document.image, row, acquired_C, x_CXYZ)
        return surroundings(x_CXYZ.numpy(), acquired_C, self._width, self._mirrored), acquired_C

    def _share(self, cohort: PreparedCohort, row: int) -> int:
        return int(shares_of(cohort.patients[[row]])[0])

    def _map(self, seen: Surroundings, share: int) -> np.ndarray:
        """[R, *shape] what a network finds, smoothed within the tissue."""
        tensors = {name: tensor[share] for name, tensor in self.tensors.items()}
        with torch.no_grad():
            found_RV = torch.sigmoid(_forward(tensors, _scaled(tensors, torch.from_numpy(seen.x_VF)))).T.numpy()
        maps = np.zeros((len(found_RV), *seen.tissue_XYZ.shape), dtype=np.float32)
        maps[:, seen.tissue_XYZ] = found_RV
        widths = [0.0, *(SMOOTH * width for width in self._width)]
        return ndimage.gaussian_filter(maps, widths, mode="constant", truncate=3.0) * seen.tissue_XYZ

    def _voxels(self, reader: Aligned, row: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Some voxels of a drawn image: [V, F], [V, R] float32 whether in a region, and [V, R] what each counts.

        Voxels count as much as they are of the image, and each image as much as another.
        """
        cohort, name = reader.cohort, self.document.annotation
        seen, _ = self._read(reader, row)
        drawn = cohort.annotation(name, row)
        assert drawn is not None
        y_VR = drawn.regions[:, seen.tissue_XYZ].T
        inside = y_VR.any(axis=1)
        draws = generator(seed, f"voxels of {name}", str(cohort.patients[row]), row)
        chosen, counts = [], []
        for part, most in ((np.flatnonzero(inside), INSIDE), (np.flatnonzero(~inside), OUTSIDE)):
            some = draws.choice(part, min(most, len(part)), replace=False)
            chosen.append(some)
            counts.append(np.full(len(some), len(part) / max(1, len(some))))
        at, count_V = np.concatenate(chosen), np.concatenate(counts)
        weight_VR = count_V[:, None] / max(count_V.sum(), 1) * drawn.annotated[None, :]
        return seen.x_VF[at], y_VR[at].astype(np.float32), weight_VR.astype(np.float32)

    def write(self, path: Path) -> None:
        """Write it as one file of tensors."""
        save_file(dict(self.tensors), path, {"document": self.document.model_dump_json()})

    @classmethod
    def read(cls, path: Path) -> Finder:
        """Read what `write` wrote.

        Raises:
            CheckpointError: It is missing or damaged.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "pt") as file:
                document: Any = json.loads((file.metadata() or {})["document"])
            return cls(Document.model_validate(document), load_file(path))
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            said = str(error).splitlines()[0][:200]
            raise CheckpointError(f"cannot be read: {said}", where=str(path), fix="copy the folder again") from None


def shares_of(patients: Iterable[str]) -> np.ndarray:
    """[N] the share that each patient belongs to, by the hash of the name."""
    return np.array(
        [hashlib.sha256(str(patient).encode()).digest()[0] % SHARES for patient in patients], dtype=np.int64
    )


def _has(cohort: PreparedCohort, image: str, rows: np.ndarray) -> np.ndarray:
    if image not in cohort.modalities:
        return np.zeros(len(rows), dtype=bool)
    return cohort.present_NM[rows, cohort.modalities.index(image)]


def _forward(tensors: Mapping[str, Tensor], x_VF: Tensor) -> Tensor:
    """[V, R] logits."""
    for layer in range(2):
        x_VF = functional.gelu(functional.linear(x_VF, tensors[f"{layer}.weight"], tensors[f"{layer}.bias"]))
    return functional.linear(x_VF, tensors["2.weight"], tensors["2.bias"])


def _scaled(tensors: Mapping[str, Tensor], x_VF: Tensor) -> Tensor:
    return (x_VF - tensors["mean"]) / tensors["scale"]


def _fit(x_VF: Tensor, y_VR: Tensor, weight_VR: Tensor, seed: int) -> dict[str, Tensor]:
    """The parameters of one network, and the means and scales of what it reads."""
    scaling = {"mean": x_VF.mean(dim=0), "scale": x_VF.std(dim=0) + 1e-3}
    x_VF = _scaled(scaling, x_VF)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        sizes = [x_VF.shape[1], WIDTH, WIDTH, y_VR.shape[1]]
        layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        parameters = dict(layers.named_parameters())
        optimiser = torch.optim.AdamW(layers.parameters(), RATE, weight_decay=DECAY)
        steps = EPOCHS * -(-len(x_VF) // VOXELS)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        # Of all voxels the mean weight is 1, so that the rate means the same for few and for many.
        weight_VR = weight_VR / weight_VR.mean().clamp(min=1e-12)
        for _ in range(EPOCHS):
            for some in torch.randperm(len(x_VF)).split(VOXELS):
                logits = _forward(parameters, x_VF[some])
                loss = functional.binary_cross_entropy_with_logits(logits, y_VR[some], weight=weight_VR[some])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
    return {**scaling, **{name: parameter.detach().clone() for name, parameter in parameters.items()}}


def dice(found: np.ndarray, drawn: np.ndarray) -> float:
    """Twice what two masks share by what both have (Dice 1945); 1 where both are empty."""
    both = int(found.sum()) + int(drawn.sum())
    return 2 * int((found & drawn).sum()) / both if both else 1.0


def names_of(annotations: Sequence[str]) -> list[str]:
    """Of the modalities that describe what is found of annotations."""
    return [f"{FOUND_PREFIX}{annotation}" for annotation in annotations]
