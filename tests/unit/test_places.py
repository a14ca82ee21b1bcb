"""Where rows stand in a person's file, also if the file is another one by now."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpsearch.data.places import Places

BY_POSITION = "row 1, counted from 0"


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("rows.jsonl", b'{"q": "A"}\n\n{"q": "B"}\n', "line 3"),
        ("rows.csv", b"\n\nq,a\nA,a\nB,b\n", "line 5"),
        ("rows.jsonl", b'{"q": "A"}\n{"q": "B"}\n{"q": "C"}\n', BY_POSITION),
        ("rows.jsonl", b'{"q": "A"}\n', BY_POSITION),
        ("rows.csv", b"q,a\nA,\xff\nB,b\n", BY_POSITION),
        ("rows.jsonl", None, BY_POSITION),
    ],
    ids=["lines", "a header below empty lines", "a row more", "a row less", "no text any more", "gone"],
)
def test_a_row_is_named_by_its_line_while_the_file_has_as_many_rows(
    tmp_path: Path, name: str, content: bytes | None, told: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    places = Places(tmp_path / name, num_rows=2, has_ids=False, used={"0": 0, "1": 1}, left_out={}, kept={})
    assert places.describe({"too long": ["1"]}) == {"too long": f"{name}: {told}"}
