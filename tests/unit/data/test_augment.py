"""Augmentation: keyed by the record, geometry as stated, absent stays absent."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.ndimage import affine_transform

from foundation.data.augment import Augmentation, _matrices, _move

NOTHING = {"flip": 0, "rotate": 0, "scale": 0, "translate": 0, "gain": 0, "offset": 0, "noise": 0}
EVERYTHING = Augmentation(flip=0.5, rotate=15, scale=0.2, translate=2, gain=0.2, offset=0.3, noise=0.1)


def images(count, shape=(9, 8, 7), floor=(-1.0, -0.5), seed=0):
    """Standardised images whose background is the lowest intensity, and their channels."""
    random = np.random.default_rng(seed)
    x = torch.from_numpy(random.gamma(2, 1, (count, 2, *shape)).astype(np.float32))
    x[:, :, 0] = 0
    x += torch.tensor(floor).view(1, 2, *[1] * len(shape))
    channels = torch.from_numpy(random.random((count, 2)) < 0.7)
    channels[:, 1] |= ~channels[:, 0]
    x[~channels] = 0
    return x, channels


def apply(augmentation, x, channels, records=None, epochs=None, **options):
    options = {"floor_C": (-1.0, -0.5), "mirror": ["x"], "spacing": (1.0, 1.0, 2.0), "name": "mri", "seed": 0} | options
    return augmentation.apply(
        x.clone(),
        channels,
        records=[f"p{i}" for i in range(len(x))] if records is None else records,
        epochs=np.zeros(len(x), dtype=np.int64) if epochs is None else epochs,
        **options,
    )


@pytest.mark.parametrize("shape", [(9, 8, 7), (12, 11)])
def test_company_changes_no_bit(shape):
    x, channels = images(7, shape)
    spacing = (1.0,) * len(shape)
    together = apply(EVERYTHING, x, channels, spacing=spacing)
    for order in ([3], [6, 0, 3], [2, 1]):
        again = apply(EVERYTHING, x[order], channels[order], records=[f"p{i}" for i in order], spacing=spacing)
        assert torch.equal(again, together[order])


@pytest.mark.parametrize("change", [{"noise": 0.1}, {"flip": 0, "rotate": 15}, {"gain": 0.2}, {"offset": 0.2}])
def test_epoch_and_seed_change_every_change(change):
    x, channels = images(3)
    augmentation = Augmentation(**NOTHING | change)
    base = apply(augmentation, x, channels)
    assert torch.equal(base, apply(augmentation, x, channels))
    later = apply(augmentation, x, channels, epochs=np.ones(3, np.int64))
    for other in (apply(augmentation, x, channels, seed=1), later):
        assert all(not torch.equal(a, b) for a, b in zip(base, other, strict=True))


def test_absent_channels_stay_zero_and_background_stays_the_lowest():
    x, channels = images(6)
    out = apply(EVERYTHING.model_copy(update={"rotate": 0, "scale": 0, "translate": 0, "flip": 0}), x, channels)
    assert not out[~channels].any()
    for c, floor in enumerate((-1.0, -0.5)):
        assert (out[channels[:, c], c, 0] == floor).all()
    moved = apply(EVERYTHING, x, channels)
    assert not moved[~channels].any()


def test_nothing_in_is_nothing_changed():
    x, channels = images(4)
    # A floor that adds and subtracts exactly.
    out = apply(Augmentation(**NOTHING), x, channels, floor_C=(0.0, 0.0))
    assert torch.equal(out.clamp(min=0), x.clamp(min=0))


def test_only_axes_that_allow_it_are_mirrored_and_about_half_of_the_images():
    x, channels = images(400, (3, 3, 2))
    x = x.abs()
    x[~channels] = 0
    out = apply(Augmentation(**NOTHING | {"flip": 0.5}), x, channels, mirror=["x"], floor_C=(0.0, 0.0))
    mirrored = torch.tensor([torch.equal(o, i.flip(1)) for o, i in zip(out, x, strict=True)])
    same = torch.tensor([torch.equal(o, i) for o, i in zip(out, x, strict=True)])
    assert (mirrored ^ same).all()
    assert 160 <= mirrored.sum() <= 240
    none = apply(Augmentation(**NOTHING | {"flip": 1}), x, channels, mirror=[], floor_C=(0.0, 0.0))
    assert torch.equal(none, x)


def test_all_channels_move_together():
    x, _ = images(5)
    x[:, 1] = x[:, 0]
    channels = torch.ones(5, 2, dtype=torch.bool)
    geometry = Augmentation(**NOTHING | {"flip": 0.5, "rotate": 30, "scale": 0.3, "translate": 3})
    out = apply(geometry, x, channels, floor_C=(-1.0, -1.0))
    assert torch.equal(out[:, 0], out[:, 1])
    assert not torch.equal(out, x)


@pytest.mark.parametrize(("shape", "spacing"), [((9, 8, 7), (1.0, 1.0, 3.0)), ((10, 7), (2.0, 1.0))])
def test_moving_agrees_with_scipy(shape, spacing):
    random = np.random.default_rng(1)
    axes = len(shape)
    x = random.random((3, 1, *shape)).astype(np.float32)
    matrices = _matrices(random.uniform(-0.5, 0.5, (3, axes)), random.uniform(0.8, 1.2, (3, 1)), np.array(spacing))
    shifts = random.uniform(-2, 2, (3, axes))
    moved = _move(torch.from_numpy(x), matrices, shifts).numpy()
    centre = (np.array(shape) - 1) / 2
    for b in range(3):
        offset = centre + shifts[b] - matrices[b] @ centre
        padded = np.pad(x[b, 0].astype(np.float64), 1)
        expected = affine_transform(padded, matrices[b], offset + 1 - matrices[b] @ np.ones(axes), order=1)
        np.testing.assert_allclose(moved[b, 0], expected[(slice(1, -1),) * axes], atol=1e-5)


def test_a_rotation_turns_millimetres_and_a_larger_scale_enlarges():
    spacing = np.array([1.0, 1.0, 3.0])
    angles = np.array([[0.3, -0.2, 0.5]])
    matrix = _matrices(angles, np.array([[1.0]]), spacing)[0]
    in_millimetres = np.diag(spacing) @ matrix @ np.diag(1 / spacing)
    np.testing.assert_allclose(in_millimetres @ in_millimetres.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(in_millimetres) == pytest.approx(1)
    blob = torch.zeros(1, 1, 11, 11)
    blob[..., 4:7, 4:7] = 1
    larger = _move(blob, _matrices(np.zeros((1, 2)), np.array([[1.5]]), np.ones(2)), np.zeros((1, 2)))
    assert larger.sum() == pytest.approx(9 * 1.5**2, rel=0.2)


def test_gain_offset_and_noise_have_the_stated_size():
    count = 300
    x = torch.full((count, 2, 4, 4, 4), 2.0)
    channels = torch.ones(count, 2, dtype=torch.bool)
    gained = apply(Augmentation(**NOTHING | {"gain": 0.2}), x, channels, floor_C=(0.0, 0.0))[:, :, 0, 0, 0] / 2
    assert 0.8 <= gained.min() < 0.82
    assert 1.18 < gained.max() <= 1.2
    shifted = apply(Augmentation(**NOTHING | {"offset": 0.5}), x, channels, floor_C=(0.0, 0.0))[:, :, 0, 0, 0] - 2
    assert -0.5 <= shifted.min() < -0.45
    assert 0.45 < shifted.max() <= 0.5
    assert not torch.equal(shifted[:, 0], shifted[:, 1])
    noise = apply(Augmentation(**NOTHING | {"noise": 0.3}), x, channels, floor_C=(0.0, 0.0)) - 2
    assert noise.std() == pytest.approx(0.3, rel=0.03)
    assert not torch.equal(noise[0], noise[1])


@pytest.mark.parametrize("bad", [{"flip": 2}, {"scale": 1}, {"rotate": -1}, {"rotation": 3}])
def test_what_makes_no_sense_is_refused(bad):
    with pytest.raises(ValidationError):
        Augmentation(**bad)
