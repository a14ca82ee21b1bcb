"""`hpsearch evaluate`: a final run on the untouched test split."""

from __future__ import annotations

from typing import Annotated

import typer

from hpsearch.cli.options import RunArgument, names_of, run_argument, short, telling
from hpsearch.opening.places import find_final_run, open_mirror, storage_folder
from hpsearch.opening.trainers import trainer_starter


def evaluate(
    run_folder: RunArgument,
    prompts: Annotated[
        str | None,
        typer.Option(help="none,static,adaptive; default: all that the study has", show_default=False),
    ] = None,
    metrics: Annotated[
        str | None, typer.Option(help="comma-separated; default: the study's", show_default=False)
    ] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="longest answer to generate; default: the study's", show_default=False)
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="number of test rows, instead of all", show_default=False)
    ] = None,
    without_base: Annotated[bool, typer.Option("--without-base", help="evaluate the tuned model only")] = False,
) -> None:
    """Score base and tuned model on the test split, with each prompt, beside each question's most frequent answer."""
    from hpsearch.results.evaluate import EvaluationOptions, evaluate_run
    from hpsearch.spec.evaluation import PROMPT_NAMES
    from hpsearch.watch.console import line_width, open_console, print_table
    from hpsearch.watch.evaluation import class_table, evaluation_table, evaluation_words
    from hpsearch.watch.pictures import draw_evaluation
    from hpsearch.watch.words import format_steps

    console = open_console()
    folder = find_final_run(str(run_folder))
    options = EvaluationOptions(
        prompts=names_of("--prompts", prompts, PROMPT_NAMES),
        metrics=names_of("--metrics", metrics),
        max_new_tokens=max_new_tokens,
        limit=limit,
        with_base=not without_base,
    )
    with telling(console) as tell:
        result = evaluate_run(folder, options, storage_folder(), trainer_starter("evaluation"), tell)
    spec = folder.load()[0].spec
    print_table(console, evaluation_table(result, spec.task, is_narrow=console.is_terminal))
    if table := class_table(result):
        print_table(console, table)
    console.print(evaluation_words(result, folder.scores), soft_wrap=True)
    console.print(draw_evaluation(result, folder.plots), soft_wrap=True)
    with open_mirror() as mirror:
        mirror.follow(folder)
    shown = run_argument(folder.path)
    of_run = "" if str(shown) == spec.study else f" --run {short(folder.path)}"
    steps = {
        f"hpsearch predict {shown} …": "ask it something yourself; --help says how",
        f"hpsearch export {shown} --to merged": "for other tools: merged, gguf, ollama, hub",
        f"hpsearch report {spec.study}{of_run}": "everything on one page",
    }
    console.print(format_steps(steps, line_width(console)), soft_wrap=True)
