"""`hpsearch predict`: ask a final run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hpsearch.cli.options import RunArgument, telling
from hpsearch.opening.places import find_final_run, storage_folder
from hpsearch.opening.trainers import trainer_starter

if TYPE_CHECKING:
    from hpsearch.results.predict import FilePrediction, Prediction


EMPTY = "(empty)"


def predict(
    run_folder: RunArgument,
    image: Annotated[
        list[Path] | None,
        typer.Option(help="image for the questions; may be repeated", show_default=False),
    ] = None,
    question: Annotated[
        list[str] | None, typer.Option(help="question to ask; may be repeated", show_default=False)
    ] = None,
    input_: Annotated[
        Path | None,
        typer.Option(
            "--input", help="JSONL file of rows with the study's columns, instead of questions", show_default=False
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="JSONL of the same rows with predictions", show_default=False)
    ] = None,
    base: Annotated[bool, typer.Option("--base", help="add the base model's answers")] = False,
    prompt: Annotated[
        Literal["none", "static", "adaptive"], typer.Option(help="which of the study's system prompts")
    ] = "none",
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="longest answer to generate; default: the study's", show_default=False)
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="rows per batch; default: as in evaluations", show_default=False)
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="overwrite --output")] = False,
) -> None:
    """Ask a final run: questions about an image or a text, or all rows of a JSONL file."""
    from hpsearch.errors import InputError
    from hpsearch.results.predict import PredictionOptions, ask, predict_file
    from hpsearch.watch.console import open_console

    if (input_ is None) != (output is None):
        raise InputError("--input and --output go together: a JSONL file to read and one to write")
    if input_ and (image or question):
        raise InputError("--input has the questions and images already: leave --image and --question out")
    folder = find_final_run(str(run_folder))
    options = PredictionOptions(with_base=base, prompt=prompt, max_new_tokens=max_new_tokens, batch_size=batch_size)
    storage, start = storage_folder(), trainer_starter("prediction")
    with telling(open_console(stderr=True)) as tell:
        if input_ and output:
            done = predict_file(folder, input_, output, options, storage, start, tell, force=force)
        else:
            said = ask(folder, image or [], question or [], options, storage, start, tell)
    if input_:
        _tell_file(done)
    else:
        _tell(said)


def _tell(said: list[Prediction]) -> None:
    """A single answer is printed alone, for scripts."""
    if len(said) == 1 and said[0].base is None:
        print(said[0].answer)
        if not said[0].answer:
            print("the answer is empty", file=sys.stderr)
    else:
        for one in said:
            base = [] if one.base is None else [f"  base:  {one.base or EMPTY}"]
            print("\n".join([one.question, f"  tuned: {one.answer or EMPTY}", *base]))
    if any(one.is_cut for one in said):
        print("an answer was cut off; raise the generation limit with --max-new-tokens", file=sys.stderr)


def _tell_file(done: FilePrediction) -> None:
    from hpsearch.results.predict import format_errors
    from hpsearch.watch.console import open_console

    console = open_console()
    console.print(f"{done.output}: {done.num_answers} answers", soft_wrap=True)
    if done.num_cut:
        console.print(f"{done.num_cut} were cut off; raise the generation limit with --max-new-tokens", soft_wrap=True)
    if done.errors:
        console.print(f"failed with an error: {format_errors(done.errors)}", soft_wrap=True)
