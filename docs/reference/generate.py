"""The reference pages, and the schemas for editors, from the code: `make reference` writes them, and a test fails where
one is not what the code says.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from docs.reference.commands import commands
from docs.reference.facts import metrics, outcomes, tasks
from docs.reference.fields import launch_file, study_file
from docs.reference.system import environment, store
from hpsearch.launch.schema import launch_schema
from hpsearch.spec.schema import as_text, study_schema

REPOSITORY = Path(__file__).parents[2]
FILES: dict[str, Callable[[], str]] = {
    "docs/reference/study-file.md": study_file,
    "docs/reference/launch-file.md": launch_file,
    "docs/reference/commands.md": commands,
    "docs/reference/outcomes.md": outcomes,
    "docs/reference/metrics.md": metrics,
    "docs/reference/tasks.md": tasks,
    "docs/reference/store.md": store,
    "docs/reference/environment.md": environment,
    "studies/schema/study.json": lambda: as_text(study_schema()),
    "studies/schema/launch.json": lambda: as_text(launch_schema()),
}


def main() -> None:
    for name, made in FILES.items():
        file = REPOSITORY / name
        text = made()
        if not file.exists() or file.read_text() != text:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
            print(name)


if __name__ == "__main__":
    main()
