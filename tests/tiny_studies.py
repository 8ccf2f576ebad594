"""Studies of networks with some thousand weights on the bundled digits, for the tests of what trains them."""

from __future__ import annotations

from pathlib import Path

HEAD = """archspec: 1
study: ablation
name: tiny
base: vit_micro
set: {input.size: 8, stem.kernel: 4, "stages[0].width": 8, "stages[0].depth": 2, "stages[0].mixer.heads": 2}
recipe: quick.yaml
data: digits
seeds: [0, 1]
columns: [params, macs, top1]
"""
ROWS = """rows:
  - {name: base}
  - {name: wide, set: {"stages[0].width": 16}}
  - {name: deep, set: {"stages[0].depth": 3}}
"""
RECIPE = """archspec: 1
epochs: 2
batch: 128
optimizer: {type: adamw, lr: 2e-3}
schedule: {warmup_epochs: 0}
augment: {crop_scale: none, flip: 0, interpolation: bilinear, crop_pct: 1}
"""


def tiny_study(folder: Path, rows: str = ROWS, head: str = HEAD, name: str = "study.yaml") -> Path:
    """The file of a study with its recipe beside it."""
    (folder / "quick.yaml").write_text(RECIPE)
    file = folder / name
    file.write_text(head + rows)
    return file
