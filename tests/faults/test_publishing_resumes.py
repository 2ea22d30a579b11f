"""An upload that is killed leaves no revision that can be found, and the next one goes on and is whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from foundation.hub.published import Published
from tests.model_hub import TOKEN, hub_here

REPOSITORY = Path(__file__).parents[2]
UPLOAD = """
import sys
from pathlib import Path
from foundation.hub.address import Address, local
from foundation.hub.upload import upload
tag = upload(Path(sys.argv[1]), Address("group/model"))
print(local(f"hf://group/model@{tag}"))
"""


def start(hub, folder, tmp_path):
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": TOKEN,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_OFFLINE": "0",
    }
    command = [sys.executable, "-c", UPLOAD, str(folder)]
    return subprocess.Popen(
        command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("at", ["PUT /objects/", "POST .*/commit/", "GET .*/resolve/.*README", "POST .*/tag/"])
def test_a_kill_at_any_step_leaves_no_tag_and_the_next_call_is_whole(tmp_path, at):
    folder = tmp_path / "published"
    folder.mkdir()
    for name in "abc":
        save_file({name: np.arange(3000, dtype=np.float32)}, folder / f"{name}.safetensors")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# A model\n")
    Published.seal(folder, "pretrained", "mit")
    with hub_here() as hub:
        hub.faults.append((at, "hang"))
        process = start(hub, folder, tmp_path)
        assert hub.hanging.wait(60)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        repository = hub.repositories["group/model"]
        assert not repository.tags
        # Of a commit there is all or nothing.
        assert all(not files or len(files) == 5 for files in repository.commits.values())
        again = start(hub, folder, tmp_path)
        told, said = again.communicate(timeout=120)
        assert again.returncode == 0, said
        assert len(repository.tags) == 1
        assert Published.verify(Path(told.strip().splitlines()[-1])) == Published.verify(folder)
