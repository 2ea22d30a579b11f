"""A simulated head with a tumour: T1 and FLAIR on a scanner's grid, and where the tumour is."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from foundation.simulation.latent import LATENT, Patient
from foundation.simulation.sites import Site
from foundation.simulation.streams import stream

FIELD_OF_VIEW = (160.0, 192.0, 144.0)
"""Millimetres, x y z."""

HEAD = np.array([73.0, 88.0, 67.0])
SKULL = HEAD - 6
BRAIN = HEAD - 11
"""Semi-axes of nested ellipsoids, in millimetres."""

VENTRICLE_SIDE, VENTRICLE_PLACE, VENTRICLE = 10.0, np.array([0.0, -2.0, 8.0]), np.array([6.0, 30.0, 11.0])

CAPSULE_PLACE, CAPSULE_RADIUS = np.array([-69.0, 34.0, 4.0]), 8.0
"""A vitamin E capsule taped to the left temple, as radiographers do, so that left can be told from right."""

TISSUES = {
    "scalp": (170.0, 200.0),
    "skull": (20.0, 12.0),
    "grey": (80.0, 88.0),
    "white": (115.0, 68.0),
    "fluid": (30.0, 15.0),
    "capsule": (220.0, 240.0),
    "necrosis": (28.0, 45.0),
}
"""Brightness in T1 and in FLAIR, before the scanner's gain; fat is the brightest in both, whatever the tumour."""

LESION_REACH, LESION_MIDDLE = np.array([34.0, 42.0, 24.0]), np.array([0.0, 0.0, 4.0])
"""How far from the middle of the brain a tumour's centre may lie, in millimetres."""

MEASURED_WITH = 0.2
"""Standard deviation of what shows of a latent dimension in the scan."""


@dataclass(frozen=True)
class Painting:
    """A head as its scanner saw it.

    Attributes:
        t1: [X, Y, Z] float32, arbitrary units.
        flair: [X, Y, Z] float32, arbitrary units.
        lesion: [X, Y, Z] bool, where the tumour is.
        affine: [4, 4], voxel indices to millimetres, RAS.
    """

    t1: np.ndarray
    flair: np.ndarray
    lesion: np.ndarray
    affine: np.ndarray


def paint(seed: int, patient: Patient) -> Painting:
    """Draw a patient's head on the grid of the patient's site."""
    random = stream(seed, "scan", patient.index)
    site = patient.site
    shape, affine = _grid(site)
    places_XYZ3 = _places(shape, affine, random)
    image_2XYZ = _head(places_XYZ3, shape, random)
    lesion_XYZ = _add_lesion(image_2XYZ, places_XYZ3, patient, random)
    t1, flair = (_scanned(channel, site, places_XYZ3, random) for channel in image_2XYZ)
    return Painting(t1=t1, flair=flair, lesion=lesion_XYZ > 0.5, affine=affine)


def _grid(site: Site) -> tuple[tuple[int, ...], np.ndarray]:
    spacing = np.array(site.spacing)
    shape = tuple(int(n) for n in np.floor(np.array(FIELD_OF_VIEW) / spacing))
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = -spacing * (np.array(shape) - 1) / 2
    return shape, affine


def _places(shape: tuple[int, ...], affine: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Where each voxel lies in the head, in millimetres: no head lies quite straight, none has quite the same size."""
    indices_3XYZ = np.indices(shape, dtype=np.float64)
    millimetres = np.moveaxis(indices_3XYZ, 0, -1) * np.diag(affine)[:3] + affine[:3, 3]
    turn = np.deg2rad(random.normal(0, 2))
    rotation = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    return (millimetres - random.normal(0, 1.0, 3)) @ rotation / random.uniform(0.97, 1.02)


def _ellipsoid(places_XYZ3: np.ndarray, semi_axes: np.ndarray) -> np.ndarray:
    """Distance to an ellipsoid's surface, about in millimetres, negative inside."""
    return (np.linalg.norm(places_XYZ3 / semi_axes, axis=-1) - 1) * float(np.mean(semi_axes))


def _inside(distance: np.ndarray, width: float = 1.0) -> np.ndarray:
    """A weight from 0 to 1 with a soft edge, as voxels on an edge hold a part of both sides."""
    return 1 / (1 + np.exp(np.clip(distance / width, -30, 30)))


def _smooth_noise(shape: tuple[int, ...], grain: float, random: np.random.Generator) -> np.ndarray:
    """A random field of unit variance whose grain is so many voxels."""
    from scipy.ndimage import gaussian_filter

    field = gaussian_filter(random.standard_normal(shape), grain, mode="wrap")
    return field / field.std()


def _blend(image_2XYZ: np.ndarray, brightness: tuple[float, float], weight: np.ndarray) -> None:
    for channel, value in zip(image_2XYZ, brightness, strict=True):
        channel += weight * (value - channel)


def _head(places_XYZ3: np.ndarray, shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    image_2XYZ = np.zeros((2, *shape))
    folds = _smooth_noise(shape, 1.0, random)
    brain = _ellipsoid(places_XYZ3, BRAIN)
    _blend(image_2XYZ, TISSUES["scalp"], _inside(_ellipsoid(places_XYZ3, HEAD)))
    _blend(image_2XYZ, TISSUES["skull"], _inside(_ellipsoid(places_XYZ3, SKULL)))
    _blend(image_2XYZ, TISSUES["grey"], _inside(brain))
    _blend(image_2XYZ, TISSUES["white"], _inside(brain + 9 + 4 * folds))
    fissure = np.abs(places_XYZ3[..., 0]) - 1.0
    _blend(image_2XYZ, TISSUES["fluid"], 0.6 * _inside(fissure) * _inside(brain) * _inside(-brain - 22, 4.0))
    width = random.uniform(0.85, 1.2)
    for side in (-1, 1):
        middle = VENTRICLE_PLACE + np.array([side * VENTRICLE_SIDE, 0, 0])
        _blend(image_2XYZ, TISSUES["fluid"], _inside(_ellipsoid(places_XYZ3 - middle, VENTRICLE * width)))
    capsule = np.linalg.norm(places_XYZ3 - CAPSULE_PLACE, axis=-1) - CAPSULE_RADIUS
    _blend(image_2XYZ, TISSUES["capsule"], _inside(capsule))
    return image_2XYZ


def _add_lesion(
    image_2XYZ: np.ndarray, places_XYZ3: np.ndarray, patient: Patient, random: np.random.Generator
) -> np.ndarray:
    """Paint the tumour that the latent asks for; returns its weight in each voxel."""
    shown = patient.latent + MEASURED_WITH * random.standard_normal(len(LATENT))
    side, depth, brightness, size, height, texture, elongation, necrosis = shown
    shape = image_2XYZ.shape[1:]
    middle = LESION_MIDDLE + LESION_REACH * np.tanh([side, depth, height])
    radius = float(np.clip(21 * math.exp(0.25 * size), 13, 36))
    # The three factors multiply to one: elongation leaves the volume as it is.
    semi_axes = radius * np.exp(np.array([-0.2, 0.4, -0.2]) * np.clip(elongation, -1.8, 1.8))
    reach = np.linalg.norm((places_XYZ3 - middle) / semi_axes, axis=-1)
    lobes = 1.5 * _smooth_noise(shape, 1.5, random)
    brain = _inside(_ellipsoid(places_XYZ3, BRAIN))
    bright = np.tanh(0.8 * brightness)
    oedema = _inside((reach - 1) * radius - 16, 4.0) * brain
    _blend(image_2XYZ, (88 - 14 * bright, 115 + 28 * bright), 0.8 * oedema)
    lesion = _inside((reach - 1) * radius + lobes) * brain
    _blend(image_2XYZ, (60 - 28 * bright, 150 + 45 * bright), lesion)
    core = 0.1 + 0.65 / (1 + math.exp(-1.3 * necrosis))
    _blend(image_2XYZ, TISSUES["necrosis"], lesion * _inside((reach - core) * radius))
    grain = 40 / (1 + math.exp(-1.5 * texture)) * _smooth_noise(shape, 0.6, random) * lesion
    image_2XYZ += np.stack([-0.5 * grain, grain])
    return lesion


def _scanned(channel: np.ndarray, site: Site, places_XYZ3: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """What the scanner makes of it: uneven coil, blur, noise as of a magnitude image, gain and offset."""
    from scipy.ndimage import gaussian_filter

    coil = 1 + (places_XYZ3 / 90) @ random.normal(0, 0.04, 3)
    blurred = gaussian_filter(np.maximum(channel, 0) * coil, site.blur / np.array(site.spacing))
    real, imaginary = random.normal(0, site.noise, (2, *channel.shape))
    gain = site.gain * random.uniform(0.92, 1.08)
    return (gain * np.hypot(blurred + real, imaginary) + site.offset).astype(np.float32)
