"""The viewer lives in a page without a network: its slider changes the picture, in a browser."""

from __future__ import annotations

import re
import shutil
import subprocess

import numpy as np
import pytest

from finetune.explain.images import viewer as module
from finetune.explain.images.planes import planes_of
from finetune.explain.images.viewer import SCRIPT, viewer
from foundation.report.page import Page

SHAPE = (12, 10, 8)

PROBE = """
const wait = setInterval(() => {
  const viewer = document.querySelector(".viewer");
  if (viewer.dataset.ready !== "yes") return;
  clearInterval(wait);
  const [slider] = viewer.querySelectorAll(".plane input"), [canvas] = viewer.querySelectorAll("canvas");
  const pixels = () => canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.join();
  const strength = viewer.querySelector(".strength"), first = pixels(), at = canvas.dataset.slice;
  const move = (input, value) => { input.value = value; input.dispatchEvent(new Event("input")); return pixels(); };
  const other = move(slider, 1), bare = move(strength, 0), colours = bare.split(",").map(Number);
  document.body.dataset.told = [
    at, canvas.dataset.slice, first !== other, other !== bare,
    colours.every((v, n) => n % 4 === 3 || v === colours[n - n % 4]), colours[0]].join(" ");
}, 20);
"""


def page(path):
    random = np.random.default_rng(0)
    scan = np.arange(np.prod(SHAPE), dtype=float).reshape(SHAPE)
    maps = {"risk <b>": random.normal(size=(3, 2, 2))}
    centers = [np.array([1.5, 5.5, 9.5]), np.array([2.0, 7.0]), np.array([2.0, 6.0])]
    planes = planes_of(SHAPE, np.diag([2, 2, 3, 1.0]))
    made = Page("scans")
    made.interactive(viewer(1, "patient </script>", {"t1": scan}, maps, centers, planes, (2, 2, 3), (4, 5, 6)), SCRIPT)
    made.interactive("", PROBE)
    made.write(path)


def in_browser(address):
    binary = shutil.which("chromium")
    if binary is None:
        pytest.skip("no chromium to open the page in")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000", "--dump-dom"]
    # Its own profile: another browser of the user must not answer.
    done = subprocess.run([binary, *options, address], capture_output=True, text=True, timeout=120, check=True)
    return re.search(r'data-told="([^"]*)"', done.stdout)


def test_the_slider_changes_the_picture(tmp_path):
    page(tmp_path / "page.html")
    told = in_browser(f"{(tmp_path / 'page.html').as_uri()}#scan-1=3,3,7")
    assert told is not None, "the script did not run"
    at, moved, changed, overlaid, grey, corner = told.group(1).split()
    assert (at, moved, changed, overlaid, grey) == ("7", "1", "true", "true", "true")
    # The left upper corner of an axial slice is right and front: the last voxel of x and y.
    values = np.arange(np.prod(SHAPE), dtype=float).reshape(SHAPE)
    low, high = np.percentile(values, [1, 99.5])
    assert abs(int(corner) - 255 * (values[-1, -1, 1] - low) / (high - low)) <= 1.5


def test_what_is_in_the_page_cannot_leave_its_place(tmp_path):
    page(tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert text.count("<script>") == 2 and text.count("</script>") == 3
    assert len(re.findall("'sha256-[^']+'", text)) == 2 and "http:" not in text and "https:" not in text
    assert "risk &lt;b&gt;" in text


def test_large_scans_are_shown_at_fewer_voxels():
    random = np.random.default_rng(0)
    channels = {name: random.random((128, 128, 80)) for name in ("t1", "t2", "flair")}
    parts = {"risk": np.zeros((2, 2, 2))}, [np.array([31.0, 95.0])] * 3, planes_of((128, 128, 80), np.eye(4))
    sizes = [len(viewer(1, "patient 1", channels, *parts, (1, 1, 1), (0, 0, 0), viewers)) for viewers in (12, 24)]
    # Noise cannot be packed: whatever a scan looks like, a dozen stay under 20 MB.
    assert sizes[0] < 20e6 / 12 and sizes[1] < 20e6 / 24
    assert module._steps((20, 20, 10), 1000) == [2, 2, 1] and module._steps((10, 10, 10), 1000) == [1, 1, 1]
