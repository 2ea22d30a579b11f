"""A viewer of slices inside the page: scroll, three planes, maps of several scores over several channels; no network.

The page holds each channel as one grey picture, slice below slice, and each map on the grid of tokens; the browser
spreads a map linearly between the centres of cells, as the written overlays are.
"""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from html import escape

import numpy as np
from PIL import Image

from finetune.explain.images.planes import Plane

MOST_VOXELS = 2**20
"""Of a scan in a page of a dozen, over its channels; finer scans are shown at every second or third voxel."""

MANY = 12
"""Viewers up to which each has so many; of more, each has less, so that the page can still be sent by mail."""

MOST_ROWS = 16_000
"""Of a picture: some browsers draw no more."""


def viewer(
    number: int,
    label: str,
    channels: Mapping[str, np.ndarray],
    maps: Mapping[str, np.ndarray],
    centers: Sequence[np.ndarray],
    planes: Sequence[Plane],
    spacing: Sequence[float],
    at: Sequence[int],
    viewers: int = 1,
) -> str:
    """The markup of one viewer; the same `SCRIPT` brings all viewers of a page to life.

    Args:
        number: Of the viewer, from 1: ``#scan-1=20,24,12`` behind the page's address opens it at that voxel.
        label: Whose scan it is.
        channels: Name to [X, Y, Z] intensities.
        maps: Name with unit to [*grid].
        centers: Of each axis the voxel indices of the cells' centres.
        planes: To show.
        spacing: Millimetres per voxel along each axis.
        at: Voxel to open at.
        viewers: That the page has.
    """
    shape = next(iter(channels.values())).shape
    step = _steps(shape, MOST_VOXELS * MANY // (len(channels) * max(MANY, viewers)))
    # Numbers, pictures and words of `planes_of` alone: nothing in it can end the element that it stands in.
    held = {
        "shape": shape,
        "step": step,
        "spacing": [float(size) for size in spacing],
        "at": [int(i) for i in at],
        "planes": [asdict(plane) for plane in planes],
        "channels": [_mosaic(values, step) for values in channels.values()],
        "maps": [[float(f"{v:.3g}") for v in values.ravel().tolist()] for values in maps.values()],
        "grid": [len(center) for center in centers],
        "centers": [center.tolist() for center in centers],
    }
    name = f"scan-{number}"
    slices = "".join(
        f'<div class="plane"><canvas aria-label="{escape(plane.name)} slice of the scan of {escape(label)}" role="img">'
        f"</canvas><label>{escape(plane.name)} slice <output></output>"
        f'<input type="range" min="0" max="{shape[plane.through] - 1}" step="1"></label></div>'
        for plane in planes
    )
    choices = "".join(
        f"<label>{what} <select>{''.join(f'<option>{escape(one)}</option>' for one in names)}</select></label>"
        for what, names in (("map", maps), ("channel", channels))
    )
    return (
        f'<div class="viewer" id="{name}"><style>{_STYLE}</style>'
        f'<script type="application/json">{json.dumps(held, separators=(",", ":"))}</script>'
        f'<div class="choices">{choices}<label>strength of the map '
        '<input type="range" class="strength" min="0" max="100" step="5" value="70"></label></div>'
        f'<div class="planes">{slices}</div>'
        '<div class="scale"><span></span><i></i><span></span></div></div>'
    )


def _steps(shape: Sequence[int], most: int) -> list[int]:
    """Every how many voxels are shown along each axis."""
    step = [1, 1, 1]
    while True:
        sizes = [-(-size // by) for size, by in zip(shape, step, strict=True)]
        if math.prod(sizes) <= most and sizes[1] * sizes[2] <= MOST_ROWS:
            return step
        step[int(np.argmax(sizes))] += 1


def _mosaic(values_XYZ: np.ndarray, step: Sequence[int]) -> str:
    """A picture as a data URL: x runs across, y and then z down."""
    low, high = np.percentile(values_XYZ, [1, 99.5])
    x, y, z = (slice(None, None, by) for by in step)
    grey = np.clip((values_XYZ[x, y, z] - low) / max(high - low, 1e-12), 0, 1)
    pixels = np.ascontiguousarray((grey * 255).round().astype(np.uint8).transpose(2, 1, 0))
    stream = io.BytesIO()
    Image.fromarray(pixels.reshape(-1, pixels.shape[2])).save(stream, format="png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


_STYLE = (
    ".viewer{margin:12px 0;background:#23262a;color:#fff;border-radius:6px;padding:10px 12px;max-width:1128px}"
    ".viewer .choices{display:flex;flex-wrap:wrap;gap:6px 20px;font-size:.85rem;align-items:center}"
    ".viewer .planes{display:flex;flex-wrap:wrap;gap:12px;margin:8px 0;align-items:flex-end}"
    ".viewer .plane{flex:1 1 220px;max-width:360px;font-size:.85rem}"
    ".viewer canvas{display:block;width:100%;background:#000;cursor:crosshair}"
    ".viewer .plane input{width:100%;display:block}.viewer select{max-width:30ch}"
    ".viewer .scale{display:flex;gap:8px;align-items:center;font-size:.85rem}"
    ".viewer .scale i{flex:0 0 180px;height:10px;background:linear-gradient(90deg,#0072b2,#23262a,#d55e00)}"
)

SCRIPT = r"""
"use strict";
(() => {
  const RAISES = [213, 94, 0], LOWERS = [0, 114, 178];
  // Of every voxel along an axis: the cell below, the cell above, and how far it is between their centres.
  const between = (size, centers) => Array.from({length: size}, (_, voxel) => {
    const last = centers.length - 1, at = Math.min(Math.max(voxel, centers[0]), centers[last]);
    let low = 0;
    while (low < last - 1 && centers[low + 1] <= at) low++;
    const high = Math.min(low + 1, last);
    return [low, high, high > low ? (at - centers[low]) / (centers[high] - centers[low]) : 0];
  });
  const loaded = url => new Promise((done, failed) => {
    const image = new Image();
    image.onload = () => {
      const canvas = document.createElement("canvas");
      canvas.width = image.width; canvas.height = image.height;
      const context = canvas.getContext("2d", {willReadFrequently: true});
      context.drawImage(image, 0, 0);
      done(context.getImageData(0, 0, image.width, image.height).data);
    };
    image.onerror = failed;
    image.src = url;
  });
  const start = async (viewer, number) => {
    const data = JSON.parse(viewer.querySelector("script").textContent);
    const [score, channel] = viewer.querySelectorAll("select"), strength = viewer.querySelector(".strength");
    const parts = [...viewer.querySelectorAll(".plane")].map((part, n) => ({
      plane: data.planes[n], canvas: part.querySelector("canvas"), slider: part.querySelector("input"),
      told: part.querySelector("output")}));
    const [lowest, highest] = viewer.querySelectorAll(".scale span");
    const {shape, step, spacing, grid} = data, at = [...data.at];
    const cells = data.centers.map((centers, a) => between(shape[a], centers));
    const sizes = shape.map((size, a) => Math.ceil(size / step[a]));
    const asked = new RegExp(`scan-${number}=(\\d+),(\\d+),(\\d+)`).exec(location.hash);
    if (asked) shape.forEach((size, a) => { at[a] = Math.min(+asked[a + 1], size - 1); });
    const scans = await Promise.all(data.channels.map(loaded));
    const value = (map, voxel) => {
      let sum = 0;
      for (let corner = 0; corner < 8; corner++) {
        let weight = 1, place = 0;
        for (let a = 0; a < 3; a++) {
          const [low, high, part] = cells[a][voxel[a]], up = corner >> a & 1;
          weight *= up ? part : 1 - part;
          place = place * grid[a] + (up ? high : low);
        }
        if (weight) sum += weight * map[place];
      }
      return sum;
    };
    const draw = () => {
      const map = data.maps[score.selectedIndex], limit = map.reduce((m, v) => Math.max(m, Math.abs(v)), 1e-12);
      const grey = scans[channel.selectedIndex], much = strength.value / 100;
      for (const {plane, canvas, slider, told} of parts) {
        const {through, across, down} = plane, width = sizes[across], height = sizes[down];
        const image = new ImageData(width, height), place = [0, 0, 0], voxel = [0, 0, 0];
        place[through] = Math.floor(at[through] / step[through]); voxel[through] = at[through];
        for (let row = 0; row < height; row++) for (let column = 0; column < width; column++) {
          place[across] = plane.flip_across ? width - 1 - column : column;
          place[down] = plane.flip_down ? height - 1 - row : row;
          voxel[across] = place[across] * step[across]; voxel[down] = place[down] * step[down];
          const light = grey[4 * ((place[2] * sizes[1] + place[1]) * sizes[0] + place[0])];
          const share = value(map, voxel) / limit, over = much * Math.min(Math.abs(share), 1);
          const colour = share > 0 ? RAISES : LOWERS, pixel = 4 * (row * width + column);
          for (let c = 0; c < 3; c++) image.data[pixel + c] = light + over * (colour[c] - light);
          image.data[pixel + 3] = 255;
        }
        canvas.width = width; canvas.height = height;
        const tall = shape[down] * spacing[down] / (shape[across] * spacing[across]);
        canvas.style.aspectRatio = `${1 / tall}`;
        canvas.getContext("2d").putImageData(image, 0, 0);
        canvas.dataset.slice = slider.value = at[through];
        told.value = `${at[through] + 1} of ${shape[through]}` +
          (plane.edges[0] ? `; left of the picture: ${plane.edges[0]}` : "");
      }
      lowest.textContent = `lowers it, −${limit.toPrecision(2)}`;
      highest.textContent = `${limit.toPrecision(2)}, raises it (${score.value})`;
    };
    for (const {plane, canvas, slider} of parts) {
      slider.addEventListener("input", () => { at[plane.through] = +slider.value; draw(); });
      canvas.addEventListener("wheel", event => {
        event.preventDefault();
        const next = at[plane.through] + Math.sign(event.deltaY);
        at[plane.through] = Math.min(Math.max(next, 0), shape[plane.through] - 1);
        draw();
      }, {passive: false});
      canvas.addEventListener("click", event => {
        const box = canvas.getBoundingClientRect();
        const [x, y] = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
        const voxel = (axis, share, flip) =>
          Math.min(Math.floor((flip ? 1 - share : share) * shape[axis]), shape[axis] - 1);
        at[plane.across] = voxel(plane.across, x, plane.flip_across);
        at[plane.down] = voxel(plane.down, y, plane.flip_down);
        draw();
      });
    }
    for (const choice of [score, channel, strength]) choice.addEventListener("input", draw);
    draw();
    viewer.dataset.ready = "yes";
  };
  document.querySelectorAll(".viewer").forEach((viewer, n) => start(viewer, n + 1));
})();
"""
