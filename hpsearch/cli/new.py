"""`hpsearch new`: a study file out of another tool's training file, or a copy of one that comes with hpsearch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def new(
    from_: Annotated[
        Path | None,
        typer.Option("--from", metavar="FILE", help="a LLaMA-Factory or Axolotl YAML", show_default=False),
    ] = None,
    example: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="quickstart, breast_cancer_qa, breast_cancer_classify or preference",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            dir_okay=False,
            help="default: in this folder, FILE's name with _study, or NAME.yaml",
            show_default=False,
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="overwrite what is there")] = False,
) -> None:
    """A study file: out of a LLaMA-Factory or Axolotl YAML, with a search space around its values, or an example."""
    from hpsearch.errors import InputError

    if from_ is not None and example is None:
        _convert(from_, output or Path(f"{from_.stem}_study.yaml"), force)
    elif example is not None and from_ is None:
        _copy(example, output or Path(f"{example}.yaml"), force)
    else:
        raise InputError("new needs one of --from FILE and --example NAME; as: hpsearch new --example quickstart")


def _copy(example: str, target: Path, force: bool) -> None:
    from hpsearch.convert.shipped import EXAMPLES, example_file
    from hpsearch.errors import InputError, cut, did_you_mean
    from hpsearch.watch.console import open_console

    if example not in EXAMPLES:
        raise InputError(f"--example: there is no {cut(repr(example))}; {did_you_mean(example, list(EXAMPLES))}")
    _write({target: example_file(example).read_text()}, target, force)
    open_console(soft_wrap=True).print(f"{target}: needs no GPU and no download\nnext: hpsearch run {target}")


def _convert(from_: Path, target: Path, force: bool) -> None:
    from hpsearch.convert import new_study
    from hpsearch.errors import InputError
    from hpsearch.watch.console import open_console

    made = new_study(from_, target)
    texts = {target: made.text} | ({target.with_name(made.script_name): made.script} if made.script else {})
    for file in texts:
        if file.exists() and file.samefile(from_):
            raise InputError(f"{file}: is the file to read from; give another name with -o")
    _write(texts, target, force)
    console = open_console(soft_wrap=True)
    console.print(f"{target}: a study from {from_}, a file of {made.tool}")
    for title, points in (("not kept", made.not_kept), ("to do before this runs", made.to_do)):
        if points:
            console.print("\n".join([f"{title}:", *(f"  - {point}" for point in points)]))
    console.print(f"next: hpsearch show {target}")


def _write(texts: dict[Path, str], target: Path, force: bool) -> None:
    from hpsearch.errors import InputError
    from hpsearch.files import write_text
    from hpsearch.spec.schema import SCHEMA_FILE, as_text, study_schema

    for file in texts:
        if file.exists() and not force:
            raise InputError(f"{file}: is there already; give another name with -o, or --force to overwrite it")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for file, text in texts.items():
            write_text(file, text)
        write_text(target.with_name(SCHEMA_FILE), as_text(study_schema()))  # for editors; its name is hpsearch's own
    except OSError as error:
        raise InputError(f"{target}: can't be written: {error.strerror}") from None
