"""A process that stands still writes its stack, says where, and ends; one that moves leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from foundation.training.hang import HangWatch, place_in

STANDING_STILL = """
import sys, time
from pathlib import Path
from foundation.training import hang

hang.GRACE = 0.1

def stands_still():
    time.sleep(60)

with hang.HangWatch(Path(sys.argv[1]), 0.5) as watch:
    with watch.paused():
        time.sleep(0.8)
    print("went on", flush=True)
    stands_still()
"""


def test_a_process_that_stands_still_says_where_and_ends(tmp_path):
    script = tmp_path / "foundation" / "still.py"
    script.parent.mkdir()
    script.write_text(STANDING_STILL)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run(
        [sys.executable, script, tmp_path / "stacks"], capture_output=True, text=True, env=environment, check=False,
        timeout=50,
    )  # fmt: skip
    assert done.returncode == 1 and done.stdout == "went on\n"
    line = STANDING_STILL[: STANDING_STILL.index("time.sleep(60)")].count("\n") + 1
    assert f"process 0 is in stands_still (foundation/still.py:{line})" in done.stderr
    assert "hang_after" in done.stderr and str(tmp_path / "stacks") in done.stderr
    assert "in stands_still" in (tmp_path / "stacks" / "process-0.txt").read_text()


def test_a_process_that_moves_leaves_nothing(tmp_path):
    with HangWatch(tmp_path / "run" / "stacks", 0.3) as watch:
        for _ in range(10):
            time.sleep(0.06)
            watch.moved()
    assert not (tmp_path / "run" / "stacks").exists()


STACKS = """process 1 of 2 on here, number 7; its main thread is 0x00000000000000ab
Timeout (0:00:01)!
Thread 0x00000000000000cd (most recent call first):
  File "/x/foundation/data/prefetch.py", line 3 in wait
Thread 0x00000000000000ab (most recent call first):
  File "/lib/threading.py", line 5 in wait
  File "/lib/site-packages/torch/nn/module.py", line 6 in forward
  File "/x/pretrain/engine.py", line 70 in train
  File "/x/launch/cli.py", line 9 in main
"""


def test_the_place_is_the_innermost_line_of_chiasma_in_the_main_thread():
    assert place_in(STACKS) == "train (pretrain/engine.py:70)"
    assert place_in(STACKS.replace("/x/pretrain", "/x/other")) == "wait (/lib/threading.py:5)"
    assert place_in("process 1 of 2 on here") == "a place that it did not write down"
