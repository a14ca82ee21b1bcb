"""Which pictures there are, where they are saved, and the line that is printed about them.

A failed picture must never fail a run: the line says what went wrong, and nothing is raised. The plotting libraries
take two seconds to load, so they are imported where they are used.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpsearch.errors import InputError, NothingToDraw
from hpsearch.evaluation import Evaluation
from hpsearch.folders import JobFolder, StorageFolder
from hpsearch.jobs import Tell
from hpsearch.search.importance import importances
from hpsearch.search.timeline import read_timeline
from hpsearch.search.view import StudyView, TrialView
from hpsearch.spec.metrics import Metric
from hpsearch.store import Store
from hpsearch.trial import TrialConfig, TrialResult
from hpsearch.watch.attachments import Attachments

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Draw = Callable[[], "Figure"]


class Album:
    """Draws into one folder, and remembers what came of it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._drawn: list[str] = []
        self._failed: list[str] = []
        self.num_curves = 0
        self.had_curves = False

    def add(self, name: str, draw: Draw) -> bytes | None:
        """Writes NAME.png and NAME.svg and gives the former; None, and no such files, where nothing can be drawn."""
        try:
            png, _ = _plots().save_figure(draw(), self._folder, name)
        except Exception as error:
            for ending in ("png", "svg"):
                with suppress(OSError):
                    (self._folder / f"{name}.{ending}").unlink()
            self.note(name, error)
            return None
        self._drawn.append(name)
        return bytes(png.read_bytes())

    def note(self, name: str, error: Exception) -> None:
        """What went wrong; that there is nothing to draw yet is not."""
        if not isinstance(error, NothingToDraw):
            first_line = next(iter(str(error).splitlines()), "")
            self._failed.append(f"{name} could not be drawn ({type(error).__name__}: {first_line})")

    def summary(self) -> str:
        """What was drawn and what wasn't; empty where nothing was new."""
        parts = [f"{', '.join(self._drawn)} in {_short(self._folder)}"] if self._drawn else []
        if self.num_curves:
            more = "more " if self.had_curves else ""
            parts.append(f"{self.num_curves} {more}{'trial' if self.num_curves == 1 else 'trials'} in the dashboard")
        parts += self._failed[:1]
        if len(self._failed) > 1:
            parts.append(f"and {len(self._failed) - 1} more")
        return f"plots: {'; '.join(parts)}" if parts else ""


def _short(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def draw_run(folder: JobFolder, plots: Path) -> str:
    """A run's losses and learning rate."""
    album = Album(plots)
    album.add("loss", lambda: _run_figure(folder))
    return album.summary()


def _run_figure(folder: JobFolder) -> Figure:
    config = folder.job()
    assert isinstance(config, TrialConfig)
    figure: Figure = _plots().training_figure(config, folder.read_history(), folder.read(TrialResult))
    return figure


def draw_evaluation(evaluation: Evaluation, plots: Path) -> str:
    """Every configuration's scores, and the classes where the answers are some."""
    album = Album(plots)
    album.add("scores", lambda: _plots().configurations_figure(evaluation))
    album.add("confusion", lambda: _plots().confusion_figure(evaluation.tuned))
    album.add("classes", lambda: _plots().classes_figure(evaluation))
    return album.summary()


def _plots() -> Any:
    """The plotting libraries take two seconds to load: only where something is drawn."""
    from hpsearch.watch import plots

    return plots


def draw_study(
    store: Store,
    view: StudyView,
    storage: StorageFolder,
    tell: Tell,
    is_stopped: Callable[[], bool] = lambda: False,
) -> str:
    """The study's pictures, drawn again if a trial has ended since, and the curve of every finished trial that has
    none yet and whose folder is on this machine. All of them, and the final run's, go into the dashboard.

    Empty where nothing was new. What `is_stopped` leaves out is drawn the next time.
    """
    album = Album(storage.plots(view.study.name))
    try:
        with store.reaching():
            attachments = Attachments(store.optuna, view.study, storage.artifacts)
            _draw_whole(store, view, storage, album, attachments)
            _draw_trials(view, storage, album, attachments, tell, is_stopped)
    except Exception as error:
        album.note("the study", error)
    return album.summary()


def study_pictures(store: Store, view: StudyView) -> dict[str, Draw]:
    """Name → how to draw it. The first objective's curves have no name of their own."""

    def curves(objective: Metric) -> Draw:
        return lambda: _plots().learning_curves_figure(view, objective)

    first, *others = view.study.spec.objectives
    pictures = {
        "learning-curves": curves(first),
        **{f"learning-curves-{metric.name}": curves(metric) for metric in others},
    }
    if others:
        pictures["trade-off"] = lambda: _plots().trade_off_figure(view)
    return pictures | {
        "importance": lambda: _plots().importance_figure(view.study.name, importances(store, view.study)),
        "memory": lambda: _plots().memory_figure(view),
        "time": lambda: _plots().time_figure(view),
        "timeline": lambda: _plots().timeline_figure(view.study.name, read_timeline(store, view)),
    }


def draw_to_look_at(store: Store, view: StudyView, folder: Path) -> Iterator[str]:
    """Every picture of the study as it is now, a line for each: where it is, or why it can't be drawn yet.

    Raises InputError where the folder can't be written.
    """
    for name, draw in study_pictures(store, view).items():
        try:
            png, svg = _plots().save_figure(draw(), folder, name)
            yield f"{name}: {_short(png)} and {svg.suffix}"
        except NothingToDraw as nothing:
            yield f"{name}: not yet: {nothing}"
        except OSError as error:
            raise InputError(f"--plots: {_short(folder)} can't be written: {error.strerror or error}") from error


def _draw_whole(store: Store, view: StudyView, storage: StorageFolder, album: Album, attachments: Attachments) -> None:
    finished = [trial for trial in view.trials if trial.is_finished]
    state = _digest(json.dumps([(trial.number, trial.outcome, trial.values) for trial in finished]).encode())
    plots = storage.plots(view.study.name)
    for name, draw in study_pictures(store, view).items() if finished else ():
        file = f"{name}.png"
        if attachments.is_current(file, state) and (plots / file).exists():
            continue
        content = album.add(name, draw)
        if content:
            attachments.attach(file, content, state)
    for picture in sorted((storage.runs / view.study.name / "plots").glob("*.png")):
        file, content = f"final-{picture.name}", picture.read_bytes()
        if not attachments.is_current(file, _digest(content)):
            attachments.attach(file, content, _digest(content))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _draw_trials(
    view: StudyView,
    storage: StorageFolder,
    album: Album,
    attachments: Attachments,
    tell: Tell,
    is_stopped: Callable[[], bool],
) -> None:
    finished = [trial for trial in view.trials if trial.is_finished]
    missing = [trial for trial in finished if not attachments.is_there("loss.png", trial.number)]
    album.had_curves = len(missing) < len(finished)
    for done, trial in enumerate(missing):
        if is_stopped():
            return
        tell("drawing the trials' curves", done, len(missing))
        content = _trial_picture(view, trial, storage, album)
        if content:
            attachments.attach_to_trial(trial.number, "loss.png", content)
            album.num_curves += 1


def _trial_picture(view: StudyView, trial: TrialView, storage: StorageFolder, album: Album) -> bytes | None:
    folder = storage.trial(view.study.uid, trial.number).last
    if folder is None or not folder.result.exists():
        return None
    try:
        content: bytes = _plots().as_png(_run_figure(folder))
        return content
    except Exception as error:
        album.note(f"trial {trial.number}", error)
        return None
