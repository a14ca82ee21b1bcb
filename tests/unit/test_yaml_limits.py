"""Files that are too large or too deep to be study files: refused at once, before anything is built from them."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpsearch.convert.file import read_foreign
from hpsearch.errors import InputError, StudyFileErrors
from hpsearch.spec import load_study

GOOD = """\
study: demo
task: text-sft
model: {base: "tiny:qwen2"}
data: {source: rows.jsonl}
search: {space: {lora.r: [8, 16]}}
"""
LAUGHS = "a0: &a0 [ha, ha, ha, ha, ha, ha, ha, ha, ha]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 11)
)
MERGED = "a0: &a0 {k: ha}\n" + "".join(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 11))
COUNTED = "holds more than 20,000 values, each alias (*name) counted as what it stands for"
DEEP = "is nested more than 32 levels deep"


def refused(folder: Path, text: str | bytes, *overrides: str) -> list[tuple[str, int | None, str]]:
    (folder / "study.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(StudyFileErrors) as raised:
        load_study(folder / "study.yaml", list(overrides))
    return [(mistake.key, mistake.line, mistake.message) for mistake in raised.value.mistakes]


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        (LAUGHS, 5, COUNTED),
        (MERGED, 5, COUNTED),
        ("a: [" + "1, " * 20_000 + "1]", 1, "holds more than 20,000 values"),
        ("a: &a 1\nb: [" + "*a, " * 200 + "]", 2, "has more than 100 aliases (*name)"),
        ("a: &a [*a]", 1, "*a stands within what it names"),
        ("a: " + "[" * 500 + "]" * 500, 1, DEEP),
        ("- " * 100_000, 1, DEEP),
        (f"a: &a {'[' * 20}{']' * 20}\nb: {'[' * 20}*a{']' * 20}", 2, DEEP),
        (GOOD + "description: a\0b\n", 6, "holds the character '\\x00', which YAML does not allow"),
        (GOOD.encode() + b"description: caf\xe9\n", 6, "is no text in UTF-8: byte 133 is 0xe9; save it as UTF-8"),
        (GOOD.encode("utf-16"), 1, "is no text in UTF-8: byte 0 is 0xff; save it as UTF-8"),
        (GOOD + f"description: {'9' * 5000}", 6, "a number of 5000 characters; at most 100 are read"),
        (GOOD + "description: !!bool maybe", 6, "'maybe' is no bool"),
        (GOOD + "description: !!int [1]", 6, "expected a scalar node, but found sequence"),
        (
            GOOD + "final: !!python/object/apply:os.system [reboot]",
            6,
            "hpsearch knows no such tag; text that ",
        ),
    ],
)
def test_a_text_beyond_the_limits_is_refused_with_its_line(
    tmp_path: Path, text: str | bytes, line: int, message: str
) -> None:
    ((key, found_line, found),) = refused(tmp_path, text)
    assert (key, found_line) == ("", line)
    assert found.startswith(message)


def test_a_file_of_many_bytes_is_read_no_further(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(GOOD + "#" * 2**20)
    with pytest.raises(InputError, match="has more than 256 KiB; is it the right file"):
        load_study(tmp_path / "study.yaml")
    with pytest.raises(InputError, match="has more than 256 KiB; is it the right file"):
        read_foreign(tmp_path / "study.yaml")


def test_another_tool_s_file_has_the_same_limits(tmp_path: Path) -> None:
    (tmp_path / "their.yaml").write_text(LAUGHS)
    with pytest.raises(InputError, match="line 5: holds more than 20,000 values"):
        read_foreign(tmp_path / "their.yaml")


def test_a_few_aliases_and_merged_sections_are_welcome(tmp_path: Path) -> None:
    text = GOOD + "budget: &short {epochs: 2, reports: 2}\nfinal: {<<: *short, epochs: 3}\n"
    (tmp_path / "study.yaml").write_text(text)
    spec = load_study(tmp_path / "study.yaml").spec
    assert (spec.final.epochs, spec.final.reports) == (3, 2)


def test_a_byte_order_mark_is_no_character_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_bytes(GOOD.encode("utf-8-sig"))
    assert load_study(tmp_path / "study.yaml").spec.study == "demo"


def test_a_key_that_is_written_twice_is_a_mistake(tmp_path: Path) -> None:
    text = GOOD.replace("data: {source", "data: {source: old.jsonl, source") + "task: vlm-sft\n"
    found = refused(tmp_path, text)
    assert ("task", 6, "stands twice; first on line 2") in found
    assert ("data.source", 4, "stands twice; first on line 4") in found


def test_keys_that_are_no_text_are_reported(tmp_path: Path) -> None:
    assert refused(tmp_path, GOOD + "7: 8\n") == [("7", 6, "a key must be text, found 7: put it in quotes")]
    assert refused(tmp_path, GOOD + "? [a]\n: 8\n") == [("", 6, "a key must be text: put it in quotes")]


def test_a_date_is_the_text_that_it_looks_like(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(GOOD + "description: 2024-13-45\n")
    assert load_study(tmp_path / "study.yaml", ["model.revision=2024-12-05"]).spec.model.revision == "2024-12-05"


def test_what_was_found_is_reported_in_short_and_without_control_characters(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(GOOD.replace("text-sft", "t" * 9000) + '"\\e[2J": 1\n' + "z" * 900 + ": 1\n")
    with pytest.raises(StudyFileErrors) as raised:
        load_study(tmp_path / "study.yaml")
    assert len(str(raised.value)) < 1500
    assert "\x1b" not in str(raised.value)
    assert "\\x1b[2J: unknown key" in str(raised.value)


def test_thousands_of_mistakes_are_counted_and_fifty_told(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(GOOD + "".join(f"key{i}: 1\n" for i in range(3000)))
    with pytest.raises(StudyFileErrors) as raised:
        load_study(tmp_path / "study.yaml")
    first, *told = str(raised.value).splitlines()
    assert first.endswith(": 3,000 mistakes")
    assert len(told) == 51
    assert told[-1] == "  and 2,950 more"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("lora.r=[1", "the list that begins here with [ is not closed"),
        ("lora.r=" + "[" * 500, DEEP),
        ("lora.r=" + "9" * 5000, "a number of 5000 characters"),
        (".".join("a" * 40) + "=1", DEEP),
        ("study=a\udc80", "holds the character '\\udc80', which YAML does not allow"),
    ],
)
def test_overrides_have_the_same_limits(tmp_path: Path, override: str, message: str) -> None:
    (tmp_path / "study.yaml").write_text(GOOD)
    with pytest.raises(InputError) as raised:
        load_study(tmp_path / "study.yaml", [override])
    assert str(raised.value).startswith("--set ")
    assert message in str(raised.value)
    assert len(str(raised.value)) < 250


STEPS = "{low: 1e-6, high: 1.0, step: 1e-6}"


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (f"{{training.learning_rate: {STEPS}, lora.r: [4, 8]}}", "the grid has 2,000,000 points, at most 10,000 are "),
        ("{lora.r: {low: 1, high: 1e300}, training.seed: {low: 0, high: 1e300}}", "the grid has more than 10^15 point"),
        ("{no.such: {low: 0, high: 1, step: 1e-9}}", "the grid has 1,000,000,001 points, at most 10,000 are built"),
    ],
)
def test_a_grid_is_counted_and_not_built(tmp_path: Path, space: str, message: str) -> None:
    found = refused(tmp_path, GOOD, "search.sampler=grid", f"search.space={space}")
    assert any(key == "search.sampler" and said.startswith(message) for key, _, said in found)


def test_a_step_that_no_float_can_take_is_a_mistake(tmp_path: Path) -> None:
    found = refused(tmp_path, GOOD, "search.space.lora.dropout={low: 0, high: 0.5, step: 1e-300}")
    assert found == [("search.space.lora.dropout", None, "step 1e-300 is too small for the range from 0 to 0.5")]
