"""Where a training run continues: the newest complete checkpoint of this attempt's folder and of earlier attempts'.

A checkpoint in an earlier attempt's folder is first copied into this one's: a trainer that was paused may still write
to that folder, so only the verified copy is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hpsearch.checkpoints import Torn, clear_drafts, copy_whole, flaw, reading
from hpsearch.files import write_lines
from hpsearch.folders import JobFolder, StageFolder, number_of
from hpsearch.trial import Report


@dataclass(frozen=True)
class Plan:
    """What all attempts of a run share: `stage_steps`, and the step of the whole run at which each report is due."""

    stage_steps: list[int]
    due: dict[int, int]

    def stage(self, folder: JobFolder, position: int) -> StageFolder:
        return folder.stage(position, len(self.stage_steps))


@dataclass(frozen=True)
class Start:
    """The position after `stage` complete stages, with a checkpoint of the next one if there is one.

    `open_report` was made at exactly the checkpoint's step: its answer is unknown.
    """

    stage: int = 0
    step: int = 0
    checkpoint: Path | None = None
    reports: tuple[Report, ...] = ()
    open_report: Report | None = None


@dataclass(frozen=True)
class _Place:
    """A checkpoint that may be torn; without one, the beginning of the stage after the complete ones."""

    folder: JobFolder
    stage: int
    step: int
    checkpoint: Path | None


def find_start(own: JobFolder, earlier: list[Path], plan: Plan) -> Start:
    """The furthest complete position; of equally far ones the own folder's. Skipped ones are logged."""
    for path in (own.path, *(plan.stage(own, position).path for position in range(len(plan.stage_steps)))):
        clear_drafts(path)
    places = [place for folder in (own, *map(JobFolder, earlier)) for place in _places(folder, plan)]
    for place in sorted(places, key=lambda place: (place.step, place.stage), reverse=True):
        try:
            start = _start_at(place, plan)
            if place.folder is own:
                _mend_history(own)
            else:
                start = _taken_over(place, start, own, plan)
        except Torn as torn:
            print(f"{place.checkpoint or place.folder.path} is not used: {torn}", flush=True)
            continue
        print(f"training continues from step {place.step}, saved in {place.folder.path}", flush=True)
        return start
    if len(places) > 0 or earlier:
        print("no checkpoint can be used: training begins at the first step", flush=True)
    return Start()


def _places(folder: JobFolder, plan: Plan) -> list[_Place]:
    try:
        with reading(folder.path):
            return list(_saved_in(folder, plan))
    except Torn as torn:
        print(f"{folder.path} is not used: {torn}", flush=True)
        return []


def _saved_in(folder: JobFolder, plan: Plan) -> Iterator[_Place]:
    before = 0
    for position, num_steps in enumerate(plan.stage_steps):
        stage = plan.stage(folder, position)
        for checkpoint in stage.checkpoints():
            if number_of(checkpoint) <= num_steps:
                yield _Place(folder, position, before + number_of(checkpoint), checkpoint)
        if not stage.done.exists():
            return
        before += num_steps
        yield _Place(folder, position + 1, before, None)


def _start_at(place: _Place, plan: Plan) -> Start:
    """Raises Torn."""
    if place.checkpoint and (wrong := flaw(place.checkpoint)):
        raise Torn(wrong)
    if place.stage and (wrong := flaw(plan.stage(place.folder, place.stage - 1).adapter)):
        raise Torn(f"the adapter of the stage before: {wrong}")
    with reading(place.folder.journal):
        made = {report.step: report for report in place.folder.read_journal()}
    is_open = place.checkpoint is not None
    before = [number for number, step in plan.due.items() if step < place.step or (step == place.step and not is_open)]
    if missing := [number for number in before if number not in made]:
        raise Torn(f"the journal lacks report {missing[0]}, which was made before it")
    at = [made[number] for number, step in plan.due.items() if is_open and step == place.step and number in made]
    reports = tuple(made[number] for number in sorted(before))
    return Start(place.stage, place.step, place.checkpoint, reports, at[0] if at else None)


def _taken_over(place: _Place, start: Start, own: JobFolder, plan: Plan) -> Start:
    """Copies what training continues from. The checkpoint comes last: with it the own folder is complete.

    Raises:
        Torn: the earlier folder vanished or changed meanwhile.
    """
    for position in range(place.stage):
        theirs, ours = plan.stage(place.folder, position), plan.stage(own, position)
        copy_whole(theirs.adapter, ours.adapter)
        ours.finish(
            [report for report in start.reports if plan.due[report.step] <= sum(plan.stage_steps[: position + 1])]
        )
    with reading(place.folder.history):
        points = [point for point in place.folder.read_history() if point.step <= place.step]
    write_lines(own.history, points)
    write_lines(own.journal, [*start.reports, *([start.open_report] if start.open_report else [])])
    if place.checkpoint is None:
        return start
    copy = plan.stage(own, place.stage).path / place.checkpoint.name
    copy_whole(place.checkpoint, copy)
    return Start(start.stage, start.step, copy, start.reports, start.open_report)


def _mend_history(own: JobFolder) -> None:
    """Removes an incomplete last line that a kill left, so that the next line is not appended to it."""
    if own.history.exists() and not own.history.read_bytes().endswith(b"\n"):
        write_lines(own.history, own.read_history())
