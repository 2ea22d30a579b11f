"""The configs of configs/finetune: each is valid, and those on simulated cohorts ask for endpoints that these have."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from finetune.config import FinetuneConfig
from finetune.tasks.base import tasks
from foundation.config import load_config
from foundation.simulation.guide import cohort_yaml

CONFIGS = sorted((Path(__file__).parents[3] / "configs" / "finetune").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_is_valid_and_its_tasks_fit_the_simulated_cohort(path):
    config = load_config(FinetuneConfig, path)
    if config.oracle is not None:
        declared = yaml.safe_load(cohort_yaml(10, 0))["endpoints"]
        for task in config.tasks:
            assert tasks.build(task, declared).name in declared
