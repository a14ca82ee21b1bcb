"""`hpsearch train`: the final training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpsearch.cli.completion import study_names
from hpsearch.cli.options import StoreOption, run_argument, short
from hpsearch.opening.places import fetch_adapter, find_study, look_at_store, open_mirror, storage_folder
from hpsearch.opening.trainers import trainer_starter

if TYPE_CHECKING:
    from hpsearch.data.manifest import Manifest
    from hpsearch.spec import StudyFile


def train(
    what: Annotated[
        str,
        typer.Argument(
            metavar="FILE|STUDY",
            help="best.yaml, a study file, or a study's name",
            show_default=False,
            autocompletion=study_names,
        ),
    ],
    trial: Annotated[
        int | None,
        typer.Option(min=0, help="this trial of the study instead of the best", show_default=False),
    ] = None,
    no_search: Annotated[bool, typer.Option("--no-search", help="train a study file's own values")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="continue an interrupted run")] = False,
    restart: Annotated[bool, typer.Option("--restart", help="delete the run in this folder and start over")] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="run folder; default: storage/runs/STUDY; with --trial STUDY-trial-N", show_default=False),
    ] = None,
    store: StoreOption = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="override a field of FILE; not with STUDY", show_default=False),
    ] = None,
) -> None:
    """Run the final training: all of the train split, the final budget; keeps the best adapter."""
    from hpsearch.bridge.stopping import StopFlag
    from hpsearch.results.final import RunFolder, train_final
    from hpsearch.trial import Outcome, best_report
    from hpsearch.watch.console import open_console
    from hpsearch.watch.pictures import draw_run
    from hpsearch.watch.training import TrainingDisplay
    from hpsearch.watch.words import format_metric

    console = open_console()
    storage = storage_folder()
    file, name, searched = _what_to_train(what, trial, no_search, store, set_)
    folder = RunFolder((out or storage.runs / name).resolve())
    stop = StopFlag()
    stop.install(watch_parent=False)
    mirror = open_mirror()
    if restart:
        mirror.delete(folder.path)
    else:
        mirror.fetch_runs(folder.path.name)
    fetch_adapter(file)
    was_trained = folder.is_trained() and not restart
    with mirror, TrainingDisplay(console, file.spec.objectives) as display:
        mirror.follow(folder)
        result = train_final(
            file,
            folder,
            storage,
            trainer_starter("final"),
            stop,
            display.tell,
            display.watch,
            resume=resume,
            restart=restart,
            searched=searched,
        )
    if result.outcome is Outcome.STOPPED:
        console.print("stopped and saved. The same command with --resume continues it.")
        raise typer.Exit(130)
    objective = file.spec.objectives[0]
    best = best_report(result.reports, objective)
    console.print(
        f"{'already trained' if was_trained else 'trained'}: best {objective.title} "
        f"{format_metric(objective, best.value(objective))} at report {best.step} of {len(result.reports)}; "
        f"{result.num_steps} steps, "
        f"{result.trainable_percent:.2f} % of the parameters trainable\n"
        f"adapter: {short(folder.adapter)}\n{draw_run(folder, folder.plots)}\n"
        f"Next: hpsearch evaluate {run_argument(folder.path)}",
        soft_wrap=True,
    )


def _what_to_train(
    what: str, trial: int | None, no_search: bool, store: str | None, overrides: list[str] | None
) -> tuple[StudyFile, str, Manifest | None]:
    """The file of the final run, its folder's name, and the manifest of the search if its store is available."""
    from hpsearch.data.manifest import Manifest
    from hpsearch.errors import InputError
    from hpsearch.results.best import choose
    from hpsearch.search.view import read_view
    from hpsearch.spec import StudyFile, load_study

    path = Path(what)
    if path.suffix in (".yaml", ".yml") or path.exists():
        file = load_study(path, overrides)
        if file.spec.search is not None and not no_search:
            raise InputError(
                f"{path} is for a search, not for a training. Train the best trial with "
                f"hpsearch train {file.spec.study}, or the file's own values with --no-search"
            )
        return file, f"{file.spec.study}-defaults" if no_search else file.spec.study, None
    if overrides:
        raise InputError("--set goes with a file; write one with hpsearch best STUDY -o best.yaml")
    with look_at_store(store) as opened:
        view = read_view(opened, find_study(opened, what))
    chosen, searched = choose(view, trial), Manifest.from_bytes(view.study.manifest)
    return (
        StudyFile(Path(f"trial {chosen.trial.number} of {what}"), chosen.final, {}),
        _run_name(what, chosen.trial.number, trial),
        searched,
    )


def _run_name(study: str, number: int, asked: int | None) -> str:
    """The study's; with the trial's number where it was asked for, or where an earlier hpsearch began the run."""
    named = f"{study}-trial-{number}"
    runs = storage_folder().runs
    return named if asked is not None or ((runs / named).exists() and not (runs / study).exists()) else study
