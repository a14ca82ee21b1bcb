"""`hpsearch new`: a study file, from a few questions, from another tool's training file, or an example."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from hpsearch.propose.questions import Given


def new(
    from_: Annotated[
        Path | None,
        typer.Option("--from", metavar="FILE", help="convert a LLaMA-Factory or Axolotl YAML", show_default=False),
    ] = None,
    example: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="copy one: quickstart, breast_cancer_qa, breast_cancer_classify or preference",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", help="your rows: a file, a saved datasets folder, a hub name", show_default=False),
    ] = None,
    task: Annotated[str | None, typer.Option("--task", help="the study's task", show_default=False)] = None,
    base: Annotated[str | None, typer.Option("--base", help="hub name or folder", show_default=False)] = None,
    memory_gib: Annotated[
        float | None, typer.Option("--memory-gib", help="GPU memory in GiB", show_default=False)
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option("--columns", help="role=column, …, such as answer=reply,group=patient", show_default=False),
    ] = None,
    hours: Annotated[
        float | None, typer.Option("--hours", help="time limit of the search, in hours", show_default=False)
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            dir_okay=False,
            help="default: in this folder, named after FILE, NAME or the data",
            show_default=False,
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="overwrite what is there")] = False,
) -> None:
    """Write a commented study file: from a few questions, another tool's file (--from) or an example (--example)."""
    from hpsearch.errors import InputError
    from hpsearch.propose.questions import Given

    given = Given(data, task, base, memory_gib, hours, _roles(columns))
    if from_ is None and example is None:
        _ask(given, output, force)
    elif (from_ is not None and example is not None) or given != Given():
        raise InputError("new takes one of --from FILE, --example NAME, and answers to its questions (--data …)")
    elif from_ is not None:
        _convert(from_, output or Path(f"{from_.stem}_study.yaml"), force)
    elif example is not None:
        _copy(example, output or Path(f"{example}.yaml"), force)


def _roles(columns: str | None) -> dict[str, str]:
    """Role → column. Raises InputError."""
    from hpsearch.errors import InputError, did_you_mean
    from hpsearch.spec.data import ColumnsSpec

    roles = {}
    for pair in columns.split(",") if columns else []:
        role, is_pair, name = (part.strip() for part in pair.partition("="))
        if not is_pair or not name:
            raise InputError(f"--columns {pair}: expected role=column, such as answer=reply")
        if role not in ColumnsSpec.model_fields:
            raise InputError(
                f"--columns: there is no role {role!r}; {did_you_mean(role, list(ColumnsSpec.model_fields))}"
            )
        roles[role] = name
    return roles


def _ask(given: Given, output: Path | None, force: bool) -> None:
    from hpsearch.errors import InputError, Interrupted, cut
    from hpsearch.propose.questions import ask_for_rows, ask_for_study
    from hpsearch.propose.study import study_name, study_text, unused_columns
    from hpsearch.spec.load import check_study_text
    from hpsearch.watch.console import open_console

    is_asked = sys.stdin.isatty()
    if given.data is None and not is_asked:
        raise InputError("there is no terminal to ask on: name the rows with --data (see hpsearch new --help)")

    def ask(question: str, default: str | None) -> str:
        if is_asked:
            try:
                return str(typer.prompt(question, default=default))
            except typer.Abort:  # Ctrl-C, or the end of the input
                console.print()
                raise Interrupted("no study was written") from None
        if default is None:
            words = f"there is no terminal to ask on, and no answer to: {question}"
            hint = "name it with --columns role=column, such as answer=reply, or another task with --task"
            raise InputError(f"{words}; {hint}")
        return default

    console = open_console(soft_wrap=True)
    look = ask_for_rows(given, Path.cwd(), ask, console.print)
    target = output or Path(f"{study_name(Path(look.source.removeprefix('sklearn:')).stem)}.yaml")
    _check_may_write([target], Path(look.source), force)  # before there are answers to lose
    answers = ask_for_study(study_name(target.stem), look, given, ask, console.print)
    folder = target.parent
    look = replace(look, source=_seen_from(folder, look.source), images=look.images and _seen_from(folder, look.images))
    text = study_text(replace(answers, look=look, base=_seen_from(folder, answers.base)))
    check_study_text(text, target)
    _write({target: text}, target, Path(look.source), force)
    if unused := unused_columns(answers):
        console.print(f"careful: not used: {', '.join(map(cut, unused))}; --columns role=column gives one a role")
    console.print(
        f"{target}: a study of task {answers.task}; read it, it is commented\n{_beside()}\nnext: hpsearch show {target}"
    )


def _copy(example: str, target: Path, force: bool) -> None:
    from hpsearch.convert.shipped import EXAMPLES, example_file
    from hpsearch.errors import InputError, cut, did_you_mean
    from hpsearch.spec.schema import schema_line
    from hpsearch.watch.console import open_console

    if example not in EXAMPLES:
        raise InputError(f"--example: there is no {cut(repr(example))}; {did_you_mean(example, list(EXAMPLES))}")
    text = re.sub(r"^# yaml-language-server.*", schema_line(), example_file(example).read_text())
    _write({target: text}, target, example_file(example), force)
    open_console(soft_wrap=True).print(
        f"{target}: needs no GPU and no download\n{_beside()}\nnext: hpsearch run {target}"
    )


def _convert(from_: Path, target: Path, force: bool) -> None:
    from hpsearch.convert import new_study
    from hpsearch.watch.console import open_console

    made = new_study(from_, target)
    texts = {target: made.text} | ({target.with_name(made.script_name): made.script} if made.script else {})
    _write(texts, target, from_, force)
    console = open_console(soft_wrap=True)
    console.print(f"{target}: a study from {from_}, a file of {made.tool}")
    for title, points in (("not kept", made.not_kept), ("to do before this runs", made.to_do)):
        if points:
            console.print("\n".join([f"{title}:", *(f"  - {point}" for point in points)]))
    console.print(f"{_beside()}\nnext: hpsearch show {target}")


def _beside() -> str:
    from hpsearch.spec.schema import SCHEMA_FILE

    return f"{SCHEMA_FILE} beside it: editors complete and check the file with it"


def _seen_from(folder: Path, name: str) -> str:
    """A path that starts at the working directory, as a study file in `folder` writes it. Other names stay."""
    if Path(name).is_absolute() or not Path(name).exists():
        return name
    return os.path.relpath(name, folder)


def _check_may_write(files: Iterable[Path], read: Path, force: bool) -> None:
    """Raises InputError where a file is there already, or is the one that was `read`, which is never overwritten."""
    from hpsearch.errors import InputError

    for file in files:
        if file.exists() and read.exists() and file.samefile(read):
            raise InputError(f"{file}: is the file to read from; give another name with -o")
        if file.exists() and not force:
            raise InputError(f"{file}: is there already; give another name with -o, or --force to overwrite it")


def _write(texts: dict[Path, str], target: Path, read: Path, force: bool) -> None:
    from hpsearch.errors import InputError
    from hpsearch.files import write_text
    from hpsearch.spec.schema import SCHEMA_FILE, as_text, study_schema

    _check_may_write(texts, read, force)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for file, text in texts.items():
            write_text(file, text)
        write_text(target.with_name(SCHEMA_FILE), as_text(study_schema()))  # for editors; the name is hpsearch's own
    except OSError as error:
        raise InputError(f"{target}: can't be written: {error.strerror}") from None
