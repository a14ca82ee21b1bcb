"""The race itself: all ways in turn, trial by trial, and the results."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from bench.comparison import Comparison, Finding, NotMeasured, Say, Side
from bench.race.racers import OURS, UNCOUNTED, WAYS, Racer, Seen, missing, racers
from bench.race.setting import Setting

TIME_S = 540.0
"""No further trial begins after it: on a slow or busy machine the race is shorter, and says so."""


def measure(say: Say) -> list[Finding]:
    with tempfile.TemporaryDirectory() as name:
        return race(tiny(say), Path(name), say, time.monotonic() + TIME_S)


def tiny(say: Say) -> Setting:
    from hpsearch.train.tiny import ensure_tiny

    say("tiny:gemma3, which is pretrained first where it is not cached yet")
    base = ensure_tiny("tiny:gemma3", lambda *_: None)
    return Setting(
        "tiny:gemma3",
        str(base),
        image_size=28,
        train_rows=192,
        validation_rows=48,
        steps=12,
        gradient_checkpointing=False,
    )


def race(setting: Setting, folder: Path, say: Say, deadline: float, entered: dict[str, str] = WAYS) -> list[Finding]:
    """`deadline` is on the monotonic clock."""
    setting.write(folder)
    setting.write_rows(folder)
    absent = {name: why for name, module in entered.items() if (why := missing(module))}
    ways = {name: module for name, module in entered.items() if name not in absent}
    with racers(folder, ways) as found:
        for racer in found.values():
            say(f"{racer.name}: ready after {racer.seen.start_s:.1f} s")
        _take_turns(list(found.values()), setting, say, deadline)
        seen = {name: racer.seen for name, racer in found.items()}
    for line in losses(setting, seen):
        say(line)
    for line in work(setting, seen):
        say(line)
    return findings(setting, seen, absent)


def _take_turns(ways: list[Racer], setting: Setting, say: Say, deadline: float) -> None:
    for number in range(setting.trials):
        started = time.monotonic()
        for racer in ways:
            racer.run_trial()
        told = ", ".join(f"{racer.name} {racer.seen.seconds[-1]:.1f} s" for racer in ways)
        say(f"trial {number + 1}: {told}")
        round_s = time.monotonic() - started
        if time.monotonic() + round_s > deadline and number + 1 < setting.trials:
            say(f"out of time after {number + 1} of {setting.trials} trials")
            return


def losses(setting: Setting, seen: dict[str, Seen]) -> list[str]:
    """Last validation losses side by side, of the trials that every way trained to the end."""
    lines = [f"last validation loss of the trials that nobody pruned ({', '.join(seen)}):"]
    for number, point in enumerate(setting.points()):
        trials = [each.losses[number] for each in seen.values() if number < len(each.losses)]
        if len(trials) == len(seen) and all(len(trial) == setting.reports for trial in trials):
            values = "  ".join(f"{trial[-1]:.5f}" for trial in trials)
            lines.append(f"  trial {number + 1}, rate {point.learning_rate:.1e}, r {point.r}: {values}")
    return lines


def work(setting: Setting, seen: dict[str, Seen]) -> list[str]:
    return [
        f"{name}: {each.trials_per_hour():,.0f} trials per hour; {len(each.seconds)} trials in {each.total_s():.0f} s, "
        f"{each.start_s:.0f} s of it until the first could begin; {each.pruned(setting)} pruned, "
        f"{each.steps(setting)} optimizer steps"
        for name, each in seen.items()
    ]


def findings(setting: Setting, seen: dict[str, Seen], absent: dict[str, str]) -> list[Finding]:
    """Of every way that hpsearch is compared with: the whole study, and the trials one by one."""
    own = seen[OURS]
    found: list[Finding] = []
    for name, other in seen.items():
        if name == OURS:
            continue
        number = len(own.seconds)
        whole = f"seconds for a study of {number} trials with its start, {setting.name}, {setting.steps} steps each"
        found += [
            Comparison(whole, "s", _whole(OURS, own, setting), _whole(name, other, setting)),
            Comparison(
                f"seconds per trial without the first, {setting.name}, n = {number - 1}",
                "s",
                Side(OURS, own.seconds[1:]),
                Side(name, other.seconds[1:]),
            ),
            _processor(setting, name, own, other),
        ]
    return found + [NotMeasured(f"seconds for a study, {name}", why) for name, why in absent.items()]


def _processor(setting: Setting, name: str, own: Seen, other: Seen) -> Finding:
    measured = f"processor seconds per trial without the first, {setting.name}, n = {len(own.seconds) - 1}"
    if name in UNCOUNTED:
        return NotMeasured(f"{measured}, {name}", "its processes come and go")
    return Comparison(measured, "s", Side(OURS, own.processor_s[1:]), Side(name, other.processor_s[1:]))


def _whole(name: str, seen: Seen, setting: Setting) -> Side:
    told = f"{seen.trials_per_hour():,.0f} trials an hour, {seen.steps(setting)} steps done"
    return Side(f"{name} ({told})", [seen.total_s()])
