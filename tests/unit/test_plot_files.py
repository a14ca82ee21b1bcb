"""Pictures in files: the same each time, and nothing is left behind."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from hpsearch.evaluation import VariantScores
from hpsearch.metrics import class_scores, confusion
from hpsearch.watch.plots import (
    as_svg,
    configurations_figure,
    confusion_figure,
    save_figure,
)
from tests.unit.picture_fixtures import evaluation

NAMES = ["$x$ and $y_", "红细胞", "a_b^c", "</svg><script>", "--"]


def strange() -> Figure:
    cell = VariantScores(name="tuned", scores={}, classes=class_scores(NAMES, NAMES), confusion=confusion(NAMES, NAMES))
    return confusion_figure(cell)


def test_a_picture_is_written_twice_and_the_same_each_time(tmp_path: Path) -> None:
    first = save_figure(strange(), tmp_path / "first", "classes")
    second = save_figure(strange(), tmp_path / "second", "classes")
    assert [file.name for file in first] == ["classes.png", "classes.svg"]
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in second]
    assert first[0].read_bytes().startswith(b"\x89PNG")
    assert sorted(file.name for file in (tmp_path / "first").iterdir()) == ["classes.png", "classes.svg"]


def test_drawing_leaves_no_setting_and_no_figure_behind() -> None:
    import matplotlib.pyplot as plt

    before = dict(mpl.rcParams)
    as_svg(strange())
    as_svg(configurations_figure(evaluation()))
    assert plt.get_fignums() == []
    assert dict(mpl.rcParams) == before
