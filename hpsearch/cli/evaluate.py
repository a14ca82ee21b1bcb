"""`hpsearch evaluate`: a final run on the untouched test split."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hpsearch.cli.options import storage_folder, telling, trainer_starter


def evaluate(
    run_folder: Annotated[Path, typer.Argument(help="folder of a final run", show_default=False)],
    max_new_tokens: Annotated[int, typer.Option(min=1, help="longest answer to generate, in tokens")] = 25,
) -> None:
    """Loss and exact match on the test split: the base model beside the tuned one."""
    from rich.console import Console

    from hpsearch.results.evaluate import evaluate_run
    from hpsearch.results.final import RunFolder
    from hpsearch.watch.tables import evaluation_table

    console = Console()
    folder = RunFolder(run_folder.resolve())
    with telling(console) as tell:
        result = evaluate_run(folder, storage_folder(), trainer_starter("evaluation"), max_new_tokens, tell)
    console.print(evaluation_table(result))
    gained = 100 * (result.tuned.exact_match - result.base.exact_match)
    console.print(
        f"On {len(result.rows)} test rows that no trial has seen, fine-tuning "
        f"{'gained' if gained >= 0 else 'lost'} {abs(gained):.1f} points of exact match.\n"
        f"Every row with both answers: {folder.evaluation.result}",
        highlight=False,
        soft_wrap=True,
    )
