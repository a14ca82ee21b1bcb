"""Tokens are counted by several processes, with the counts of one, and of each row once: also after a kill."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from datasets import Dataset

from hpsearch.data.prepared import write_rows
from hpsearch.data.rows import Row as PreparedRow
from hpsearch.errors import FieldError
from hpsearch.jobs import InspectionConfig
from hpsearch.spec.model import ModelSpec
from hpsearch.train import counting
from hpsearch.train.counting import Count, count_rows, kept_counts
from hpsearch.train.encoding import Encoder, Row
from hpsearch.train.inspection import inspect
from hpsearch.train.tiny.tokenizers import qwen_tokenizer
from tests.integration.conftest import ROWS
from tests.integration.inside import Answering

pytestmark = pytest.mark.filterwarnings(
    "ignore:This DataLoader will create",  # on a machine with one core
    "ignore:This process .* is multi-threaded:DeprecationWarning",  # since Python 3.12: forks compute on one thread
)
NUM_ROWS = 230
UseProcesses = Callable[[int], None]


@pytest.fixture
def use_processes(monkeypatch: pytest.MonkeyPatch) -> UseProcesses:
    monkeypatch.setattr(counting, "_AT_ONCE", 10)
    return lambda number: monkeypatch.setattr(counting, "_num_processes", lambda _: number)


@pytest.fixture
def rows(tmp_path: Path) -> Dataset:
    write_rows([_row(number) for number in range(NUM_ROWS)], tmp_path / "rows")
    return Dataset.load_from_disk(str(tmp_path / "rows"))


def _row(number: int) -> PreparedRow:
    said = [{"role": "user", "content": f"What is {number}?"}, {"role": "assistant", "content": "a" * (number % 7)}]
    return PreparedRow(id=str(number), messages=said, images=(), group=None, label=None, split=None, stage=None)


class Counter:
    def __init__(self) -> None:
        self._encoder = Encoder(qwen_tokenizer(), ROWS, has_images=False)
        self.ids: list[str] = []

    def __call__(self, row: Row) -> Count:
        self.ids.append(row["id"])
        return self._encoder.num_tokens(row), int(row["id"])


def quietly(*_: object) -> None:
    pass


def test_several_processes_count_what_one_counts(rows: Dataset, use_processes: UseProcesses) -> None:
    use_processes(0)
    alone = list(count_rows(rows, Counter(), None, quietly))
    assert [added for _, added in alone] == list(range(NUM_ROWS))
    assert len({tokens for tokens, _ in alone}) > 5
    use_processes(2)
    told: list[tuple[str, int, int]] = []
    here = Counter()
    assert list(count_rows(rows, here, None, lambda *now: told.append(now))) == alone
    assert here.ids == []
    assert told == [("counting tokens", done, NUM_ROWS) for done in range(0, NUM_ROWS, 10)]


def test_after_a_kill_only_the_other_rows_are_counted(
    rows: Dataset, tmp_path: Path, use_processes: UseProcesses
) -> None:
    kept = tmp_path / "kept" / "counts.txt"

    def dies_in_the_middle(_: str, done: int, total: int) -> None:
        if done > total / 2:
            os.kill(os.getpid(), signal.SIGKILL)

    def prepare() -> None:
        list(count_rows(rows, Counter(), kept, dies_in_the_middle))

    use_processes(2)
    killed = multiprocessing.get_context("fork").Process(target=prepare)
    killed.start()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    with kept.open("ab") as file:
        file.write(b'\n["0123", 4')  # what a full disk leaves of a line

    use_processes(0)
    again = Counter()
    counts = list(count_rows(rows, again, kept, quietly))
    assert again.ids == [str(number) for number in range(120, NUM_ROWS)]
    assert counts == list(count_rows(rows, Counter(), None, quietly))
    once_more = Counter()
    assert list(count_rows(rows, once_more, kept, quietly)) == counts
    assert once_more.ids == []


def test_where_a_process_is_killed_the_rest_is_counted_here(
    rows: Dataset, use_processes: UseProcesses, capfd: pytest.CaptureFixture[str]
) -> None:
    use_processes(2)
    here = os.getpid()

    def kills(row: Row) -> Count:
        if os.getpid() != here and row["id"] == "57":
            os.kill(os.getpid(), signal.SIGKILL)
        return int(row["id"]), 0

    assert [alone for alone, _ in count_rows(rows, kills, None, quietly)] == list(range(NUM_ROWS))
    assert "counting goes on in one process" in capfd.readouterr().out


def test_a_row_is_known_by_what_it_says(tmp_path: Path, rows: Dataset, use_processes: UseProcesses) -> None:
    use_processes(0)
    kept = tmp_path / "counts.txt"
    list(count_rows(rows, Counter(), kept, quietly))
    changed = rows.map(lambda row: {"id": f"{row['id']}0", "label": "odd" if row["id"] in ("3", "5") else None})
    again = Counter()
    list(count_rows(changed, again, kept, quietly))
    assert again.ids == ["30", "50"]


@pytest.mark.parametrize("processes", [0, 2])
def test_the_first_row_that_cannot_be_counted_is_reported(
    rows: Dataset, use_processes: UseProcesses, processes: int
) -> None:
    def refuses(row: Row) -> Count:
        if int(row["id"]) >= 57:
            raise FieldError("data.source", f"row {row['id']}: no")
        return 1, 0

    use_processes(processes)
    with pytest.raises(FieldError, match="row 57: no"):
        list(count_rows(rows, refuses, None, quietly))


def test_counts_are_good_for_the_same_template_and_words_around(tmp_path: Path) -> None:
    config = InspectionConfig(
        task="text-sft", models=[], rows=ROWS, candidate_rows=tmp_path / "rows", counted=tmp_path / "counted"
    )
    processor = qwen_tokenizer()
    first = kept_counts(config, processor)
    rows = {
        change: ROWS.model_copy(update={change: value})
        for change, value in {"max_tokens": 7, "system_prompt": "Be brief.", "image_size": 64}.items()
    }
    again = {change: kept_counts(config.model_copy(update={"rows": one}), processor) for change, one in rows.items()}
    assert again["max_tokens"] == first == kept_counts(config, qwen_tokenizer())
    processor.chat_template += " "
    others = [again["system_prompt"], again["image_size"], kept_counts(config, processor)]
    others.append(kept_counts(config.model_copy(update={"task": "text-preference"}), processor))
    assert len({first, *others}) == 5


def test_an_inspection_counts_each_row_once(
    rows: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, use_processes: UseProcesses
) -> None:
    use_processes(0)
    config = InspectionConfig(
        task="text-sft",
        models=[ModelSpec(base="tiny:qwen2")],
        rows=ROWS,
        candidate_rows=tmp_path / "rows",
        counted=tmp_path / "counted",
    )
    first = inspect(config, Answering())
    assert len(first.num_tokens) == len(rows)
    monkeypatch.setattr(Encoder, "num_tokens", None)
    assert inspect(config, Answering()) == first
