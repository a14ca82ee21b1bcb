"""A study as a notebook reads it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from sqlalchemy.engine import URL

from hpsearch.api import frames
from hpsearch.api.html import facts_table, framed
from hpsearch.api.words import in_python
from hpsearch.errors import HpsearchError
from hpsearch.files import write_output
from hpsearch.opening.places import find_study, fixed_storage, storage_folder, store_url
from hpsearch.results.best import Best, as_yaml, choose
from hpsearch.search.view import StudyView, read_view
from hpsearch.spec import StudySpec, load_study
from hpsearch.store import Store
from hpsearch.store.engine import named
from hpsearch.watch.document import StudyStatus
from hpsearch.watch.status import study_status
from hpsearch.watch.words import format_metric, format_params, format_time

PathLike = str | os.PathLike[str]


def open_study(study: PathLike, *, store: str | None = None, storage: PathLike | None = None) -> Study:
    """A study by its name, or by its study file. Opening and reading change nothing: they wait for no lock.

    Args:
        study: the study's name, or a path that ends in .yaml or .yml.
        store: database URL; default: $HPSEARCH_STORE, or the SQLite file in the storage folder.
        storage: the storage folder or its URL; default: $HPSEARCH_STORAGE, or ./storage.

    Raises:
        InputError: there is no such store or study; the message names those that there are.
        StoreUnreachable: the database did not answer.
    """
    with in_python():
        place = fixed_storage(storage)
        opened = Study(_name(study), store_url(store, place, from_argv=False), place)
        with opened._view():
            return opened


def _name(study: PathLike) -> str:
    path = Path(study)
    return load_study(path).spec.study if path.suffix in (".yaml", ".yml") else os.fspath(study)


class Study:
    """One study, from `open_study`. Each attribute reads the store again; earlier results don't change.

    Attributes:
        name: the study's name.
    """

    def __init__(self, name: str, store: URL, storage: str) -> None:
        self.name = name
        self._url = store
        self._storage = storage

    @property
    def trials(self) -> pd.DataFrame:
        """One row for each trial.

        Columns: number, outcome, value (of the first objective), a column for each objective if there are several and
        for each searched parameter, seconds, attempts, fits_memory, peak_device_gib, peak_host_gib, ledger_closes,
        device, reason.
        """
        with self._view() as (_, view):
            return frames.trials_frame(view)

    @property
    def curves(self) -> pd.DataFrame:
        """One row for each report of each trial.

        Columns: trial, report (its number, from 1), step (the optimizer step), loss (on the validation rows, in nats
        per learned token), and a column for each metric.
        """
        with self._view() as (_, view):
            return frames.curves_frame(view, storage_folder(self._storage))

    @property
    def best(self) -> BestTrial:
        """The best trial by the first objective, with what `hpsearch best` writes of it.

        Raises:
            InputError: no trial is complete yet.
        """
        with self._view() as (_, view):
            return BestTrial._of(view, choose(view, None))

    @property
    def front(self) -> pd.DataFrame:
        """The trials that no other beats in every objective (Pareto), as in `trials`; the best by the first objective
        comes first."""
        with self._view() as (_, view):
            return frames.trials_frame(view, [trial.number for trial in view.front])

    @property
    def status(self) -> StudyStatus:
        """The study's part of `hpsearch status --json`, without its trials and its jobs."""
        with self._view() as (_, view):
            return study_status(view)

    @property
    def spec(self) -> StudySpec:
        """What the study file said when the study was created or last resumed."""
        with self._view() as (_, view):
            return view.study.spec

    def report(self, run: PathLike | None = None) -> Report:
        """The page that `hpsearch report` writes. The cell shows it; `save` writes it.

        Args:
            run: folder of the study's final run; default: as `hpsearch train` names it, where there is one.

        Raises:
            InputError: the folder is no complete run, or another study's.
        """
        from hpsearch.opening.report import find_run_of, page_of  # its plotting libraries take two seconds to import

        with self._view() as (store, view):
            found = find_run_of(view, None if run is None else Path(run), self._storage)
            return Report(f"report of {self.name}", page_of(store, view, found))

    @contextmanager
    def _view(self) -> Iterator[tuple[Store, StudyView]]:
        with in_python(), Store(self._url, only_to_read=True) as store:
            yield store, read_view(store, find_study(store, self.name))

    def __repr__(self) -> str:
        return f"Study({self.name!r}, store={named(self._url)!r})"

    def _repr_html_(self) -> str:
        """A cell that shows a study must not fail because its store can't be reached."""
        try:
            with self._view() as (_, view):
                return facts_table(self.name, _facts(view))
        except HpsearchError as error:
            return facts_table(self.name, {"can't be read": str(error)})


def _facts(view: StudyView) -> dict[str, str]:
    spec, state = view.study.spec, study_status(view).state
    left, best = view.seconds_left(), view.best
    best_value = "" if best is None else format_metric(view.objective, best.value)
    return {
        "for": spec.description or "",
        "base": f"{spec.model.base}, {spec.task}",
        "state": {"limit": view.reached_limit, "paused": f"paused: {view.study.paused}"}.get(state) or state,
        "trials": f"{view.slots.finished} of {view.slots.wanted}",
        "workers": str(len(view.live_workers) or ""),
        "time left": "" if view.is_finished or left is None else f"about {format_time(left)}",
        "best": f"{view.objective.title} {best_value} (trial {best.number})" if best else "",
        "with": format_params(best.params) if best else "",
        "Pareto front": ", ".join(f"trial {trial.number}" for trial in view.front) if len(spec.objectives) > 1 else "",
    }


@dataclass(frozen=True)
class BestTrial:
    """One trial's parameters and values.

    Attributes:
        number: the trial's number.
        value: of the first objective.
        values: of every objective, by its name.
        params: of every searched parameter, by its name in a study file.
        yaml: the file that `hpsearch best -o` writes: complete, for `hpsearch train`.
    """

    number: int
    value: float
    values: dict[str, float]
    params: dict[str, Any]
    yaml: str = field(repr=False)

    @classmethod
    def _of(cls, view: StudyView, best: Best) -> BestTrial:
        values = dict(zip(view.study.spec.objective_names, best.trial.values, strict=True))
        return cls(best.trial.number, best.trial.values[0], values, best.values, as_yaml(best))

    def save(self, path: PathLike, *, overwrite: bool = False) -> Path:
        """Writes `yaml`. Raises InputError where it can't, or where the file has other content, unless `overwrite`."""
        return write_output(Path(path), self.yaml, unless_changed=None if overwrite else "overwrite=True")

    def _repr_html_(self) -> str:
        values = {name: f"{value:.4f}" for name, value in self.values.items()}
        return facts_table(f"trial {self.number}", values | {name: str(value) for name, value in self.params.items()})


@dataclass(frozen=True, repr=False)
class Report:
    """A page that needs no other file. As the last line of a cell it is shown, in a frame of its own.

    Attributes:
        title: what it is.
        html: the page.
    """

    title: str
    html: str

    def save(self, path: PathLike) -> Path:
        """Writes the page. Raises InputError where it can't."""
        return write_output(Path(path), self.html)

    def __repr__(self) -> str:
        return f"<{self.title}, {len(self.html):,} characters of HTML; save(path) writes it>"

    def _repr_html_(self) -> str:
        return framed(self.html, self.title)
