"""Options that several verbs share; what they open is in `hpsearch.opening`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from hpsearch.cli.completion import run_names, study_names
from hpsearch.opening.places import storage_folder

if TYPE_CHECKING:
    from rich.console import Console

    from hpsearch.bridge.stopping import StopFlag
    from hpsearch.jobs import Tell
    from hpsearch.store import StoredStudy


class Verb(TyperCommand):
    """Typer's help shows `<bool>` beside every option that takes no value (0.29, core.py, `display_type_rich`), and its
    errors are in pydantic's words (_coercion.py, `_coerce_value`).
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter as error:
            cause: Any = error.__cause__
            if hasattr(cause, "errors"):
                from hpsearch.spec.explain import explain

                error.message = explain(*cause.errors()[:1])
            raise

    def get_params(self, ctx: Any) -> Any:
        params = super().get_params(ctx)
        for option in params:
            if getattr(option, "is_flag", False):
                option.metavar = ""
        return params


StudyFileArgument = Annotated[Path, typer.Argument(help="a study file", show_default=False)]
StudyArgument = Annotated[str, typer.Argument(help="a study's name", show_default=False, autocompletion=study_names)]
RunArgument = Annotated[
    Path,
    typer.Argument(help="folder of a final run, or its study's name", show_default=False, autocompletion=run_names),
]
StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        help="database URL, without a password; default: $HPSEARCH_STORE, or SQLite in ./storage",
        show_default=False,
    ),
]
WaitOption = Annotated[
    float,
    typer.Option(
        "--wait-for-store", metavar="MINUTES", min=0, help="how long to wait for a store that can't be reached"
    ),
]
NOTIFY_VARIABLE = "HPSEARCH_NOTIFY"
NotifyOption = Annotated[
    str | None,
    typer.Option(
        "--notify",
        envvar=NOTIFY_VARIABLE,
        metavar="COMMAND",
        help="called when the study is finished, paused, at a limit, stopped or failed: mail, chat; the message comes "
        "on its standard input",
        show_default=False,
    ),
]
PerDeviceOption = Annotated[
    int, typer.Option(min=1, max=8, help="workers that share each card, and its memory in equal parts")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="override a field of the study file", show_default=False),
]


def worker_arguments(
    study_file: Path, store: str | None, overrides: list[str] | None, workers_per_device: int, wait_for_store: float
) -> list[str]:
    """The arguments of `hpsearch worker` for one verb's options."""
    arguments = [str(study_file), *(part for override in overrides or [] for part in ("--set", override))]
    arguments += ["--store", store] if store else []
    return [*arguments, "--wait-for-store", f"{wait_for_store:g}", "--workers-per-device", str(workers_per_device)]


def refuse_paused(stored: StoredStudy) -> None:
    """Raises HpsearchError with the reason, and how to resume."""
    from hpsearch.errors import HpsearchError

    if stored.paused is not None:
        raise HpsearchError(
            f"study {stored.name} is paused: {stored.paused}\nhpsearch resume {stored.name} lets trials start again"
        )


def short(path: Path) -> Path:
    """The path relative to the working directory, if it is below."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def run_argument(folder: Path) -> Path:
    """A final run as the next command takes it: its name where that is enough in this folder, else its path."""
    by_name = folder.parent == storage_folder().runs and short(folder) != folder and not Path(folder.name).is_dir()
    return Path(folder.name) if by_name else short(folder)


def names_of(option: str, value: str | None, known: Sequence[str] | None = None) -> Any:
    """The comma-separated names of an option; None where it was not given. Raises InputError for one that is not in
    `known`.
    """
    from hpsearch.errors import InputError, did_you_mean

    if value is None:
        return None
    names = [name.strip() for name in value.split(",") if name.strip()]
    for name in names:
        if known is not None and name not in known:
            raise InputError(f"{option}: there is no {name!r}; {did_you_mean(name, list(known))}")
    return names


def stoppable(tell: Tell, stop: StopFlag) -> Tell:
    """Raises Interrupted as soon as a stop is requested: preparation has nothing to save."""
    from hpsearch.errors import Interrupted

    def tell_or_stop(name: str, done: int, total: int) -> None:
        if stop.requested:
            raise Interrupted("stopped while preparing the study; the same command continues")
        tell(name, done, total)

    return tell_or_stop


_SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def telling(console: Console) -> Iterator[Tell]:
    """A progress line for longer work: a bar on a terminal, plain lines elsewhere."""
    if not console.is_terminal:
        yield _teller(console)
        return
    from rich.progress import (
        BarColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
    )

    from hpsearch.watch.console import show_phase

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(30),
        TextColumn("{task.fields[count]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        progress.add_task("", total=None, count="", note="")

        def tell(name: str, done: int, total: int) -> None:
            show_phase(progress, name, done, total)

        yield tell


def _teller(console: Console) -> Tell:
    """A line when a phase begins for the first time, and every few seconds while it counts."""
    told: set[str] = set()
    last, last_at = ("", 0), 0.0

    def tell(name: str, done: int, total: int) -> None:
        nonlocal last, last_at
        now = time.monotonic()
        if name not in told or ((name, done) != last and now - last_at > _SECONDS_BETWEEN_LINES):
            told.add(name)
            last, last_at = (name, done), now
            console.print(f"{name}{f' {done}/{total}' if done else ''}")

    return tell
