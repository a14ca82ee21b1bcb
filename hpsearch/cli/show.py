"""`hpsearch show`: what a study's trials will see, before anything is trained."""

from __future__ import annotations

from typing import Annotated

import typer

from hpsearch.cli.options import SetOption, StudyFileArgument, telling
from hpsearch.opening.places import fetch_adapter, storage_folder
from hpsearch.opening.trainers import inspector


def show(
    study_file: StudyFileArgument,
    examples: Annotated[int, typer.Option(min=0, help="how many examples to show")] = 3,
    set_: SetOption = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="load the base and time a few steps: how long will the study take?")
    ] = False,
) -> None:
    """Show a study before it runs: splits, estimated time, and examples with their masked and learned tokens."""
    from hpsearch.bridge.trainer_process import one_trainer
    from hpsearch.opening.estimates import kept_estimate, measured_estimate
    from hpsearch.spec import load_study

    file = load_study(study_file, set_)  # report mistakes before the libraries are loaded

    from hpsearch.study.adapter import with_adapter
    from hpsearch.study.open import check_trackers, keep_prepared
    from hpsearch.study.prepare import prepare_study
    from hpsearch.watch.console import open_console
    from hpsearch.watch.estimate import estimate_line, steps_line
    from hpsearch.watch.examples import example_panel, splits_table

    console = open_console()
    storage = storage_folder()
    check_trackers(file)
    with telling(console) as tell, one_trainer(inspector()) as start:
        fetch_adapter(file)
        file = with_adapter(file, storage)
        prepared = prepare_study(file, storage, start, tell, examples)
        found = None
        if file.spec.search is not None:
            if measure:
                keep_prepared(file, prepared, storage)
                found = measured_estimate(file, prepared, start, tell, None)
            else:
                found = kept_estimate(file, prepared)
    console.print(splits_table(file.spec, prepared.manifest))
    if file.spec.search is not None:
        console.print(estimate_line(found) if found else steps_line(file.spec, prepared), soft_wrap=True)
        console.print()
    ids = [example.id for example in prepared.examples]
    lines = prepared.places.lines_of(ids) if prepared.places else {}
    for example in prepared.examples:
        console.print(example_panel(example, lines.get(example.id)))
