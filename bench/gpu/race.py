"""The race at Gemma-3-4B's shape, 896 px: hpsearch against the tutorial's loop, as many trials as there is time for."""

from __future__ import annotations

from bench.comparison import Comparison
from bench.gpu.figures import Figure
from bench.gpu.place import Place
from bench.gpu.shapes import GEMMA3_4B
from bench.race.race import race
from bench.race.racers import OURS
from bench.race.setting import Setting

WAYS = {OURS: "ours", "the tutorial's loop": "tutorial"}


def setting(place: Place) -> Setting:
    return Setting(
        GEMMA3_4B.name,
        str(GEMMA3_4B.base(place)),
        image_size=GEMMA3_4B.size(place) or 0,
        train_rows=64,
        validation_rows=8,
        steps=4,
        gradient_checkpointing=True,
        trials=2 if place.rehearses else 16,
        lowest_rate=1e-5,
        highest_rate=5e-4,
    )


def measure(place: Place) -> None:
    raced = setting(place)
    for finding in race(raced, place.fresh("race"), place.say, place.deadline, WAYS):
        measured, own, other, ratio = finding.cells()
        goal = "5 times as fast at least" if isinstance(finding, Comparison) else ""
        place.show(Figure("race", measured, f"{ratio}: {own}; {other}", goal))
