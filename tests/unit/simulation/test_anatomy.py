"""A painted head: the tumour is dark in T1 and bright in FLAIR, and the latent shows."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from foundation.simulation.anatomy import paint
from foundation.simulation.latent import LATENT, Patient, draw_patient
from foundation.simulation.sites import SITES


def patient(index: int = 0, **latent: float) -> Patient:
    values = np.array([latent.get(name, 0.0) for name in LATENT])
    return dataclasses.replace(draw_patient(0, index), latent=values, site=SITES[0])


def average(what, **latent: float) -> float:
    return float(np.mean([what(paint(0, patient(index, **latent))) for index in range(4)]))


@pytest.mark.parametrize("site", SITES, ids=lambda site: f"site {site.number}")
def test_each_site_scans_on_its_own_grid(site):
    painting = paint(0, dataclasses.replace(draw_patient(0, 0), site=site))
    np.testing.assert_array_equal(np.diag(painting.affine)[:3], site.spacing)
    extent = np.array(painting.t1.shape) * site.spacing
    assert (extent <= [160, 192, 144]).all() and (extent > [154, 185, 137]).all()
    middle = painting.affine[:3] @ [*((np.array(painting.t1.shape) - 1) / 2), 1]
    np.testing.assert_allclose(middle, 0, atol=1e-9)
    assert painting.t1.shape == painting.flair.shape == painting.lesion.shape
    assert painting.t1.min() >= site.offset


def test_a_tumour_is_dark_in_t1_and_bright_in_flair():
    painting = paint(0, patient(necrosis=-3))
    brain = np.median(painting.t1[15:25, 15:30, 8:16]), np.median(painting.flair[15:25, 15:30, 8:16])
    assert np.median(painting.t1[painting.lesion]) < 0.8 * brain[0]
    assert np.median(painting.flair[painting.lesion]) > 1.4 * brain[1]


def test_brightness_brightens_flair_and_darkens_t1():
    for channel, sign in (("flair", 1), ("t1", -1)):
        low, high = (
            average(lambda p, c=channel: np.median(getattr(p, c)[p.lesion]), brightness=value, necrosis=-3)
            for value in (-1, 1)
        )
        assert sign * (high - low) > 15


def test_texture_roughens_the_tumour():
    low, high = (average(lambda p: p.flair[p.lesion].std(), texture=value, necrosis=-3) for value in (-1.5, 1.5))
    assert high > 1.15 * low


def test_necrosis_darkens_the_core():
    low, high = (average(lambda p: (p.flair[p.lesion] < 90).mean(), necrosis=value) for value in (-1.5, 1.5))
    assert high > low + 0.15


def test_elongation_lengthens_the_tumour_from_back_to_front_and_keeps_its_volume():
    def ratio(painting):
        spread = np.argwhere(painting.lesion).std(axis=0) * np.diag(painting.affine)[:3]
        return spread[1] / spread[0]

    low, high = (average(ratio, elongation=value) for value in (-1, 1))
    assert high > 1.8 * low
    small, large = (average(lambda p: p.lesion.sum(), elongation=value) for value in (-1, 1))
    assert 0.8 < small / large < 1.25


def test_every_latent_leaves_a_tumour_in_the_brain():
    for corner in np.ndindex(2, 2, 2):
        side, depth, height = 3.0 * (2 * np.array(corner) - 1)
        painting = paint(0, patient(side=side, depth=depth, height=height, size=-3))
        assert painting.lesion.sum() > 10
