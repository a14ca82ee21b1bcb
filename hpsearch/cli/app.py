"""The `hpsearch` command: its verbs, and how errors reach a person."""

from __future__ import annotations

import sys

import typer

from hpsearch.cli import (
    best,
    compare,
    dashboard,
    delete,
    doctor,
    evaluate,
    export,
    launch,
    logs,
    new,
    pause,
    predict,
    report,
    resume,
    retry,
    run,
    schema,
    show,
    status,
    stop,
    store,
    train,
    worker,
)
from hpsearch.cli.options import Verb
from hpsearch.errors import HpsearchError, cut

_LONGEST_LINE = 4000
"""An error may quote a file: its text must not move the cursor or fill the screen."""

app = typer.Typer(
    name="hpsearch",
    help="Hyperparameter search for QLoRA fine-tuning that can be left running.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.command("doctor", cls=Verb)(doctor.doctor)
app.command("new", cls=Verb)(new.new)
app.command("schema", cls=Verb)(schema.schema)
app.command("show", cls=Verb)(show.show)
app.command("run", cls=Verb)(run.run)
app.command("launch", cls=Verb)(launch.launch)
app.command("worker", cls=Verb)(worker.worker)
app.command("status", cls=Verb)(status.status)
app.command("logs", cls=Verb)(logs.logs)
app.command("stop", cls=Verb)(stop.stop)
app.command("pause", cls=Verb)(pause.pause)
app.command("resume", cls=Verb)(resume.resume)
app.command("retry", cls=Verb)(retry.retry)
app.command("delete", cls=Verb)(delete.delete)
app.command("dashboard", cls=Verb)(dashboard.dashboard)
app.command("best", cls=Verb)(best.best)
app.command("train", cls=Verb)(train.train)
app.command("evaluate", cls=Verb)(evaluate.evaluate)
app.command("predict", cls=Verb)(predict.predict)
app.command("compare", cls=Verb)(compare.compare)
app.command("export", cls=Verb)(export.export)
app.command("report", cls=Verb)(report.report)
app.add_typer(store.store, name="store")


def main() -> None:
    """Exit codes: 0, 1 (it failed), 2 (wrong input; Typer reports unknown verbs and options itself), 130 (Ctrl-C)."""
    try:
        app()
    except HpsearchError as error:
        from hpsearch.watch.console import open_console

        words = "\n".join(cut(line, _LONGEST_LINE) for line in f"hpsearch: {error}".split("\n"))
        open_console(stderr=True).print(words, soft_wrap=True)
        sys.exit(error.exit_code)
