"""`hpsearch schema`: study files and launch.yaml as JSON schemas, for editors."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Kind(StrEnum):
    STUDY = "study"
    LAUNCH = "launch"


def schema(
    kind: Annotated[Kind, typer.Argument(help="schema of study files, or of launch.yaml")] = Kind.STUDY,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", dir_okay=False, help="default: standard output", show_default=False)
    ] = None,
) -> None:
    """Print a JSON schema with which an editor completes, explains and checks study files or launch.yaml."""
    from hpsearch.files import write_output
    from hpsearch.launch.schema import launch_schema
    from hpsearch.spec.schema import as_text, schema_line, study_schema

    text = as_text(study_schema() if kind is Kind.STUDY else launch_schema())
    if output is None:
        print(text, end="")
        return
    write_output(output, text)
    print(f"{output}: begin a file beside it with\n  {schema_line(output.name)}")
