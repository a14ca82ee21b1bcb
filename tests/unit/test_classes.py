"""Labels that are learned: distinct, renamed if the study says so, in every split, and balanced in train."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from datasets import ClassLabel, Dataset, Features, Value
from PIL import Image

from hpsearch.data.classes import balanced
from hpsearch.data.divide import divide
from hpsearch.data.manifest import Manifest, make_manifest
from hpsearch.data.rows import LeftOut, ReadRows
from hpsearch.data.split import Splits
from hpsearch.errors import FieldError
from hpsearch.spec.curriculum import CurriculumSpec
from hpsearch.spec.data import DataSpec

Read = Callable[..., ReadRows]
WriteJsonl = Callable[[str, list[Any]], str]
COLUMNS = {"image": "image", "label": "kind"}
HALVES = {"train": 0.6, "validation": 0.2, "test": 0.2}
KEY = "data.columns.label"


@pytest.fixture
def source(tmp_path: Path, write_jsonl: WriteJsonl) -> Callable[..., str]:
    """`source(cat=10, dog=5)`: a file of so many rows of each label, every row with an image of its own."""

    def write(counts: dict[str, int]) -> str:
        labels = [label for label, count in counts.items() for _ in range(count)]
        for number in range(len(labels)):
            Image.new("RGB", (4, 4), (number % 256, number // 256, 9)).save(tmp_path / f"{number}.png")
        return write_jsonl("rows.jsonl", [{"image": f"{i}.png", "kind": label} for i, label in enumerate(labels)])

    return write


def data_of(**more: Any) -> DataSpec:
    return DataSpec.model_validate({"source": "rows.jsonl", "columns": COLUMNS, "split": HALVES, **more})


def divided(read: Read, folder: Path, **more: Any) -> tuple[Splits, LeftOut]:
    data = data_of(**more)
    return divide(read(**data.model_dump(exclude_unset=True)), data, CurriculumSpec(), folder)


def refusal(read: Read, folder: Path, **more: Any) -> tuple[str, str]:
    with pytest.raises(FieldError) as raised:
        divided(read, folder, **more)
    return raised.value.key, raised.value.message


def labels_of(splits: Splits) -> dict[str, dict[str | None, int]]:
    return {name: dict(Counter(row.label for row in rows)) for name, rows in splits.items()}


def way_out(message: str) -> dict[str, str | None]:
    """What a user copies from the message into the study file."""
    start = message.index("data.labels: ") + len("data.labels: ")
    renamed: dict[str, str | None] = yaml.safe_load(message[start : message.index("}", start) + 1])
    return renamed


@pytest.mark.parametrize(
    ("other", "told"),
    [("Cat", '"Cat"'), (" cat", '" cat"'), ("cat\t", r'"cat\t"'), ("cat\u00a0", r'"cat\u00a0"'), ("CAT", '"CAT"')],
)
def test_labels_that_differ_in_case_or_blanks_alone_are_refused_and_the_way_out_works(
    source: Callable[..., str], read: Read, tmp_path: Path, other: str, told: str
) -> None:
    source({"cat": 20, other: 10, "dog": 20})
    key, message = refusal(read, tmp_path)
    assert key == KEY
    assert message.startswith(f'"cat" (20 rows) and {told} (10 rows) differ only in case or whitespace. ')
    assert way_out(message) == {other: "cat"}
    splits, _ = divided(read, tmp_path, labels=way_out(message))
    assert Counter(row.label for rows in splits.values() for row in rows) == {"cat": 30, "dog": 20}


def test_all_spellings_are_reported_at_once(source: Callable[..., str], read: Read, tmp_path: Path) -> None:
    source({"a  cat": 5, "A cat": 9, "a Cat ": 2, "Stra\u00dfe": 9, "STRASSE": 8, "e\u0301": 4, "\u00e9": 9})
    _, message = refusal(read, tmp_path)
    expected = {"a  cat": "A cat", "a Cat ": "A cat", "STRASSE": "Stra\u00dfe", "e\u0301": "\u00e9"}
    assert way_out(message) == expected
    divided(read, tmp_path, labels=expected)


def test_two_classes_of_like_names_may_be_told_apart(source: Callable[..., str], read: Read, tmp_path: Path) -> None:
    source({"a": 20, "A": 20})
    assert "if not, give one of them another name there" in refusal(read, tmp_path)[1]
    splits, _ = divided(read, tmp_path, labels={"A": "capital A"})
    assert set(labels_of(splits)["train"]) == {"a", "capital A"}


def test_labels_are_renamed_in_what_is_learned_too(source: Callable[..., str], read: Read, tmp_path: Path) -> None:
    source({"c": 10, "d": 10})
    splits, _ = divided(read, tmp_path, labels={"c": "cat"})
    assert {(row.label, row.messages[-1]["content"]) for row in splits["train"]} == {("cat", "cat"), ("d", "d")}


def test_rows_of_a_label_are_left_out_and_counted(source: Callable[..., str], read: Read, tmp_path: Path) -> None:
    source({"cat": 10, "dog": 10, "unclear": 3})
    splits, left_out = divided(read, tmp_path, labels={"unclear": None})
    assert set(labels_of(splits)["train"]) == {"cat", "dog"}
    assert left_out == {"label is left out by data.labels": ["20", "21", "22"]}


def test_a_renamed_label_that_no_row_has_is_refused(source: Callable[..., str], read: Read, tmp_path: Path) -> None:
    source({"cat": 10, "dog": 9})
    key, message = refusal(read, tmp_path, labels={"cta": "cat"})
    assert (key, message) == ("data.labels", "no row has the label 'cta'; found: 'cat', 'dog'")


def test_a_row_without_a_label_is_left_out(source: Callable[..., str], read: Read, tmp_path: Path) -> None:
    source({"cat": 10, "dog": 10, " ": 2})
    assert divided(read, tmp_path)[1] == {"empty label": ["20", "21"]}


def test_numbered_classes_have_their_names(read: Read, tmp_path: Path) -> None:
    for number in range(21):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(tmp_path / f"{number}.png")
    kinds = [0] * 10 + [1] * 10 + [-1]
    features = Features(image=Value("string"), kind=ClassLabel(names=["cat", "dog"]))
    rows = Dataset.from_dict({"image": [f"{i}.png" for i in range(21)], "kind": kinds}, features=features)
    rows.save_to_disk(str(tmp_path / "saved"))
    splits, left_out = divided(read, tmp_path, source="saved", images=".")
    assert set(labels_of(splits)["train"]) == {"cat", "dog"}
    assert left_out == {"empty label": ["20"]}


def test_one_class_is_nothing_to_learn(source: Callable[..., str], read: Read, tmp_path: Path) -> None:
    source({"cat": 10})
    assert refusal(read, tmp_path) == (KEY, 'every row has the label "cat": nothing to learn')
    source({"cat": 10, "dog": 5})
    assert "nothing to learn" in refusal(read, tmp_path, labels={"dog": None})[1]


def test_a_class_in_one_split_only_is_refused_and_the_way_out_works(
    source: Callable[..., str], read: Read, tmp_path: Path
) -> None:
    source({"cat": 20, "dog": 20, "axolotl": 1})
    key, message = refusal(read, tmp_path)
    assert key == KEY
    assert message.startswith('class "axolotl" has no rows in ')
    assert "(1 in " in message
    assert way_out(message) == {"axolotl": None}
    divided(read, tmp_path, labels=way_out(message))


def test_a_class_in_only_one_of_the_data_s_own_splits_is_refused(
    tmp_path: Path, write_jsonl: WriteJsonl, read: Read
) -> None:
    rows = []
    for number, (split, label) in enumerate([("train", "cat"), ("train", "dog"), ("val", "cat"), ("test", "cat")]):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(tmp_path / f"{number}.png")
        rows.append({"image": f"{number}.png", "kind": label, "part": split})
    write_jsonl("rows.jsonl", rows)
    _, message = refusal(read, tmp_path, split={"column": "part", "validation": "val"})
    assert message.startswith('class "dog" has no rows in test and validation (1 in train): ')


@pytest.mark.parametrize(
    ("balance", "wanted"),
    [
        (4, {"cat": 4, "dog": 4, "emu": 4}),
        (10, {"cat": 10, "dog": 10, "emu": 6}),
        ("smallest", {"cat": 6, "dog": 6, "emu": 6}),
    ],
)
def test_train_alone_is_balanced_and_what_it_costs_is_counted(
    source: Callable[..., str], read: Read, tmp_path: Path, balance: int | str, wanted: dict[str, int]
) -> None:
    source({"cat": 40, "dog": 20, "emu": 10})
    natural, _ = divided(read, tmp_path)
    splits, left_out = divided(read, tmp_path, balance=balance)
    assert labels_of(natural)["train"] == {"cat": 24, "dog": 12, "emu": 6}
    assert labels_of(splits)["train"] == wanted
    assert (splits["validation"], splits["test"]) == (natural["validation"], natural["test"])
    most = max(wanted.values())
    ((reason, ids),) = left_out.items()
    assert reason == f"balance: more than {most} training rows of its label"
    train = {row.id for row in splits["train"]}
    assert {*ids, *train} == {row.id for row in natural["train"]}
    assert len(ids) + len(train) == 42


def test_balancing_draws_the_same_rows_each_time_and_others_with_another_seed(
    source: Callable[..., str], read: Read, tmp_path: Path
) -> None:
    source({"cat": 40, "dog": 40})

    natural, _ = divided(read, tmp_path)

    def drawn(seed: int) -> list[str]:
        splits, _ = balanced(natural, data_of(balance=5, split=HALVES | {"seed": seed}))
        return [row.id for row in splits["train"]]

    assert drawn(0) == drawn(0)
    assert drawn(0) == sorted(drawn(0), key=int), "rows keep their order"
    assert drawn(0) != drawn(1)


def test_a_balanced_manifest_is_found_again_in_the_data(source: Callable[..., str], read: Read, tmp_path: Path) -> None:
    source({"cat": 40, "dog": 20, "unclear": 2})
    splits, left_out = divided(read, tmp_path, balance="smallest", labels={"unclear": None})
    manifest = Manifest.from_bytes(make_manifest(splits, left_out).to_bytes())
    again = read(**data_of(labels={"unclear": None}).model_dump(exclude_unset=True))
    assert manifest.rows_of(again) == splits
    assert manifest.classes == ["cat", "dog"]
    assert manifest.labels["train"] == {"cat": 12, "dog": 12}


def test_rows_without_a_label_are_not_thinned_out(tmp_path: Path, write_jsonl: WriteJsonl, read: Read) -> None:
    kinds = ["cat"] * 30 + [None] * 30
    write_jsonl("rows.jsonl", [{"q": f"{i}?", "a": f"{i}.", "kind": kind} for i, kind in enumerate(kinds)])
    splits, _ = divided(read, tmp_path, columns={"question": "q", "answer": "a", "label": "kind"}, balance=2)
    assert labels_of(splits)["train"] == {"cat": 2, None: 18}
