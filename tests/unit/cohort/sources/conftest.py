"""What the tests of the table sources share: a source from a few words, and all of its blocks put together."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import foundation.cohort.sources  # noqa: F401
from foundation.cohort.sources.base import TableSource, table_sources

Assembled = tuple[list[str], np.ndarray]


@pytest.fixture
def open_source() -> Callable[..., TableSource]:
    """A source of a format, for a file."""

    def open_(path: Path, **config: object) -> TableSource:
        part = table_sources[str(config["format"])]
        return part(part.Config.model_validate({"files": path.name, **config}), path)

    return open_


@pytest.fixture
def assemble() -> Callable[..., Assembled]:
    """Features and values [S, F] of a source; every value must come exactly once."""

    def read(source: TableSource, samples: list[str] | None = None) -> Assembled:
        samples = source.list_samples() if samples is None else samples
        table = source.read(samples)
        values = np.zeros((len(samples), len(table.features)), dtype=np.float32)
        times = np.zeros_like(values, dtype=int)
        for block in table.blocks:
            assert block.values.dtype == np.float32
            values[block.samples, block.features] = block.values
            times[block.samples, block.features] += 1
        assert (times == 1).all()
        return table.features, values

    return read
