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
app.command("doctor")(doctor.doctor)
app.command("new")(new.new)
app.command("schema")(schema.schema)
app.command("show")(show.show)
app.command("run")(run.run)
app.command("launch")(launch.launch)
app.command("worker")(worker.worker)
app.command("status")(status.status)
app.command("logs")(logs.logs)
app.command("stop")(stop.stop)
app.command("pause")(pause.pause)
app.command("resume")(resume.resume)
app.command("retry")(retry.retry)
app.command("delete")(delete.delete)
app.command("dashboard")(dashboard.dashboard)
app.command("best")(best.best)
app.command("train")(train.train)
app.command("evaluate")(evaluate.evaluate)
app.command("predict")(predict.predict)
app.command("compare")(compare.compare)
app.command("export")(export.export)
app.command("report")(report.report)
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
