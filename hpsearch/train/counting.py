"""Counting the tokens of many rows: by several processes, and each row once, also where a preparation was killed.

What takes time is Python: of 0.6 ms for a row with an image, rendering the chat template takes a half, and a
tokenizer's own threads help with little of the rest. So rows go to processes, some at a time.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import datasets
from joblib import cpu_count
from torch.utils import data

from hpsearch.data.decoding import DECODED_AS
from hpsearch.files import KeptLines
from hpsearch.jobs import InspectionConfig, Tell
from hpsearch.train.encoding import Row

Count = tuple[int, int]
"""Tokens of a row, and the tokens that it adds as a few-shot example."""
CountRow = Callable[[Row], Count]

_AT_ONCE = 100
"""Rows per portion of work for a process."""
_FEWEST = 10
"""Portions per process, at least: starting one costs as much as counting some hundred rows."""
_MOST_PROCESSES = 8
_COUNTED_AS = 1
"""Increased when our own code tokenizes rows differently: they are counted again."""
_NO_MATTER = ("id", "images")
"""Fields of a row that don't matter: an image is identified by its checksum."""


def kept_counts(config: InspectionConfig, processor: Any) -> Path | None:
    """The file with the counts of rows that were counted in exactly this way.

    `processor` is identified by the files it would save: vocabulary, chat template, image settings.
    """
    if config.counted is None:
        return None
    facts = [_COUNTED_AS, DECODED_AS, config.task, config.counts_shown]
    facts += [config.rows.model_dump_json(exclude={"max_tokens"}), version("transformers"), version("tokenizers")]
    with tempfile.TemporaryDirectory() as folder:
        processor.save_pretrained(folder)
        saved = sorted(file for file in Path(folder).rglob("*") if file.is_file())
        facts += [[str(file.relative_to(folder)), hashlib.sha256(file.read_bytes()).hexdigest()] for file in saved]
    return config.counted / f"{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]}.txt"


def count_rows(rows: datasets.Dataset, count: CountRow, kept: Path | None, tell: Tell) -> Iterator[Count]:
    """In the order of the rows. Raises the error of `count` for the first failing row."""
    portions = _Portions(rows, count, _read(kept) if kept else {})
    with KeptLines(kept) as lines:
        for number, counted in enumerate(_in_processes(portions)):
            tell("counting tokens", number * _AT_ONCE, len(rows))
            if counted is None:
                counted = portions.count(number)  # raises here what the process raised
            if new := [json.dumps(found) for *found, is_new in counted if is_new]:
                lines.add("\n".join(new))
            yield from ((alone, added) for _, alone, added, _ in counted)


def _in_processes(portions: _Portions) -> Iterator[list[_Counted] | None]:
    """In order. Where a process is killed, as for want of memory, this one counts the rest."""
    processes, done = _num_processes(len(portions)), 0
    # Forks: nothing is loaded again, and memory is shared. torch's loader lets each process use one thread, buffers few
    # results, keeps their order, and ends all processes with this one.
    loader = data.DataLoader(
        portions,
        batch_size=None,
        collate_fn=_as_it_is,
        num_workers=processes,
        multiprocessing_context="fork" if processes else None,
    )
    try:
        for counted in loader:
            yield counted
            done += 1
    except RuntimeError as error:
        print(f"counting goes on in one process: {error}", flush=True)
    for number in range(done, len(portions)):
        yield portions[number]


_Counted = tuple[str, int, int, bool]
"""A row's checksum, its count, and whether it was counted just now."""


class _Portions(data.Dataset[list[_Counted] | None]):
    def __init__(self, rows: datasets.Dataset, count: CountRow, known: dict[str, Count]) -> None:
        self._rows = rows
        self._count = count
        self._known = known

    def __len__(self) -> int:
        return -(-len(self._rows) // _AT_ONCE)

    def __getitem__(self, number: int) -> list[_Counted] | None:
        """None: an error was raised."""
        try:
            return self.count(number)
        except Exception:
            return None

    def count(self, number: int) -> list[_Counted]:
        first = number * _AT_ONCE
        portion = self._rows.select(range(first, min(first + _AT_ONCE, len(self._rows))))
        return list(map(self._counted, portion))

    def _counted(self, row: Row) -> _Counted:
        digest = _digest(row)
        known = self._known.get(digest)
        return digest, *(known or self._count(row)), known is None


def _num_processes(num_portions: int) -> int:
    """The number of cores that this process may use; 0: only this process."""
    found = min(cpu_count(), _MOST_PROCESSES, num_portions // _FEWEST)
    return found if found > 1 else 0


def _as_it_is(portion: Any) -> Any:
    return portion


def _digest(row: Row) -> str:
    facts = {name: value for name, value in row.items() if name not in _NO_MATTER}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def _read(file: Path) -> dict[str, Count]:
    try:
        with file.open("rb") as lines:
            return {digest: count for line in lines for digest, count in _parsed(line)}
    except OSError:
        return {}


def _parsed(line: bytes) -> list[tuple[str, Count]]:
    with suppress(ValueError):
        match json.loads(line):
            case [str(digest), int(alone), int(added)]:
                return [(digest, (alone, added))]
    return []
