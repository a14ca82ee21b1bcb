"""`hpsearch show`: what a study's trials will see, before anything is trained."""

from __future__ import annotations

from typing import Annotated

import typer

from hpsearch.cli.options import SetOption, StudyFileArgument, inspector, storage_folder, telling


def show(
    study_file: StudyFileArgument,
    examples: Annotated[int, typer.Option(min=0, help="how many examples to show")] = 3,
    set_: SetOption = None,
) -> None:
    """The splits, and a few examples as the model will see them: what is masked, what is learned."""
    from hpsearch.spec import load_study

    file = load_study(study_file, set_)  # a mistake in it is told before the libraries are loaded

    from hpsearch.study.adapter import with_adapter
    from hpsearch.study.prepare import prepare_study
    from hpsearch.watch.console import open_console
    from hpsearch.watch.examples import example_panel, splits_table

    console = open_console()
    with telling(console) as tell:
        storage = storage_folder()
        prepared = prepare_study(with_adapter(file, storage), storage, inspector(), tell, examples)
    console.print(splits_table(file.spec, prepared.manifest))
    for example in prepared.examples:
        console.print(example_panel(example))
