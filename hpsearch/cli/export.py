"""`hpsearch export`: a final run for other tools."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hpsearch.cli.options import RunArgument, StoreOption, telling
from hpsearch.opening.places import find_final_run, look_at_store, storage_folder
from hpsearch.opening.trainers import trainer_starter

if TYPE_CHECKING:
    from hpsearch.results.final import RunFolder
    from hpsearch.search.view import StudyView

To = Literal["merged", "gguf", "ollama", "hub"]


def export(
    run_folder: RunArgument,
    to: Annotated[
        To,
        typer.Option(help="merged weights; GGUF files; GGUF with a Modelfile; or the hub", show_default=False),
    ],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="folder; default: exports/ in the run folder", show_default=False),
    ] = None,
    dtype: Annotated[Literal["bfloat16", "float16"], typer.Option(help="dtype of the merged weights")] = "bfloat16",
    llama_cpp: Annotated[
        Path | None, typer.Option(help="checkout of llama.cpp, for GGUF files", show_default=False)
    ] = None,
    python: Annotated[
        Path | None,
        typer.Option(help="Python for llama.cpp's converter; default: its checkout's .venv", show_default=False),
    ] = None,
    repo: Annotated[str | None, typer.Option(help="OWNER/NAME on the hub", show_default=False)] = None,
    private: Annotated[bool, typer.Option("--private", help="make the repository private")] = False,
    merged: Annotated[bool, typer.Option("--merged", help="push the merged model instead of the adapter")] = False,
    force: Annotated[bool, typer.Option("--force", help="replace an earlier export")] = False,
    store: StoreOption = None,
) -> None:
    """Export a final run for other tools: merged weights, GGUF, Ollama, or the Hugging Face hub."""
    from hpsearch.results.export import Export, ExportOptions
    from hpsearch.watch.console import open_console

    options = ExportOptions(
        to=to,
        output=output,
        dtype=dtype,
        llama_cpp=llama_cpp,
        python=python,
        repo=repo,
        private=private,
        merged=merged,
        force=force,
    )
    console = open_console()
    folder = find_final_run(str(run_folder))
    with telling(console) as tell:
        job = Export(folder, options, storage_folder(), trainer_starter("export"), tell, _study_of(folder, store))
        message = job.run()
    console.print(message, soft_wrap=True)


def _study_of(folder: RunFolder, url: str | None) -> StudyView | None:
    """The run's study in the store, for the model card."""
    from hpsearch.errors import NoStoreYet
    from hpsearch.search.view import read_view

    name = folder.load()[0].spec.study
    try:
        opened = look_at_store(url)
    except NoStoreYet:
        return None
    with opened:
        with opened.reaching():
            stored = opened.studies.find(name)
        return None if stored is None else read_view(opened, stored)
