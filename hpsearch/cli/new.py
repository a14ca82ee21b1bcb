"""`hpsearch new`: a study file out of another tool's training file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def new(
    from_: Annotated[
        Path, typer.Option("--from", metavar="FILE", help="a LLaMA-Factory or Axolotl YAML", show_default=False)
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            dir_okay=False,
            help="default: FILE's name with _study, in this folder",
            show_default=False,
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="overwrite what is there")] = False,
) -> None:
    """A study file out of a LLaMA-Factory or Axolotl YAML, with a search space around its values."""
    from hpsearch.convert import new_study
    from hpsearch.errors import InputError
    from hpsearch.files import write_text
    from hpsearch.watch.console import open_console

    target = output or Path(f"{from_.stem}_study.yaml")
    made = new_study(from_, target)
    texts = {target: made.text} | ({target.with_name(made.script_name): made.script} if made.script else {})
    for file in texts:
        if file.exists() and file.samefile(from_):
            raise InputError(f"{file}: is the file to read from; give another name with -o")
        if file.exists() and not force:
            raise InputError(f"{file}: is there already; give another name with -o, or --force to overwrite it")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for file, text in texts.items():
            write_text(file, text)
    except OSError as error:
        raise InputError(f"{target}: can't be written: {error.strerror}") from None
    console = open_console(soft_wrap=True)
    console.print(f"{target}: a study from {from_}, a file of {made.tool}")
    for title, points in (("not kept", made.not_kept), ("to do before this runs", made.to_do)):
        if points:
            console.print("\n".join([f"{title}:", *(f"  - {point}" for point in points)]))
    console.print(f"next: hpsearch show {target}")
