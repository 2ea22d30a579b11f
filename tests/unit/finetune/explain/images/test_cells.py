"""Cells stand for what tokens see, in the order of tokens, and maps spread over voxels as they should."""

from __future__ import annotations

import pytest
import torch

from finetune.explain.images.cells import Cells
from foundation.model.towers.base import towers

SHAPE = (40, 26, 24)


@pytest.mark.parametrize("name", ["vit2d", "vit3d"])
@pytest.mark.parametrize("axis", ["x", "z"])
def test_a_token_is_the_cell_that_it_sees(name, axis):
    config = towers[name].tiny()
    if name == "vit2d":
        config = config.model_copy(update={"slice_axis": axis, "max_slices": 5})
    tower = towers[name](config, 1, SHAPE)
    cells = Cells.of(tower, SHAPE)
    number = torch.arange(len(cells), dtype=torch.float32).view(cells.grid)
    patches_TV = tower.patches(cells.blocks(number)[None, None])[0]
    assert (patches_TV == patches_TV[:, :1]).all(), "a token sees several cells"
    torch.testing.assert_close(cells.from_tokens(patches_TV[:, 0]), number)
    # The middle of a cell is a voxel of what its token sees.
    place = torch.arange(SHAPE[0]).view(-1, 1, 1).expand(SHAPE)[None, None].float()
    middle = cells.from_tokens(tower.patches(place)[0].mean(dim=1))[:, 0, 0]
    inside = middle < SHAPE[0] - tower.patch[0]
    torch.testing.assert_close(middle[inside].double(), cells.center[0][inside])


def test_maps_are_linear_between_centres_and_nothing_is_lost_in_sums():
    cells = Cells.of(towers["vit2d"](towers["vit2d"].tiny(), 1, SHAPE), SHAPE)
    x, y, z = torch.meshgrid(*cells.center, indexing="ij")
    voxels = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in SHAPE), indexing="ij")
    found = cells.smooth(2 * x - 3 * y + z)
    ends = [(c[0], c[-1]) for c in cells.center]
    expected = [v.clamp(*end) for v, end in zip(voxels, ends, strict=True)]
    torch.testing.assert_close(found, 2 * expected[0] - 3 * expected[1] + expected[2])
    values = torch.rand(3, *SHAPE, dtype=torch.float64)
    torch.testing.assert_close(cells.sums(values).sum(dim=(1, 2, 3)), values.sum(dim=(1, 2, 3)))
