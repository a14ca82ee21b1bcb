"""The reference pages and the schemas are what the code says, and leave nothing out."""

from __future__ import annotations

import re
from typing import get_args

import pytest

from docs.reference import fields
from docs.reference.fields import Schema
from docs.reference.generate import FILES, REPOSITORY
from docs.reference.markdown import prose
from hpsearch import environment
from hpsearch.errors import EXIT_CODES, InputError, Interrupted
from hpsearch.spec import preference
from hpsearch.store.tables import metadata
from hpsearch.watch.document import STATES, StudyStatus
from hpsearch.worker import endings


@pytest.mark.parametrize("name", FILES)
def test_a_page_is_what_the_code_says(name: str) -> None:
    kept = (REPOSITORY / name).read_text()
    assert kept == FILES[name](), f"{name} is not what the code says any more: make reference"


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".md")])
def test_nothing_on_a_page_is_left_unexplained(name: str) -> None:
    """The last column of each table is what a thing is."""
    assert re.findall(r"^.*\| +\|$", (REPOSITORY / name).read_text(), re.MULTILINE) == []


def test_what_has_no_description_is_reported_in_words() -> None:
    schema: Schema = {"$defs": {"Made": {"properties": {"name": {"const": "made"}}}}}
    with pytest.raises(LookupError, match=r"lora\.made_up has no description"):
        fields._fields({"properties": {"made_up": {"type": "integer"}}}, "lora")
    with pytest.raises(LookupError, match="Made has no description"):
        fields._named("search.pruner", {"anyOf": [{"oneOf": [{"$ref": "#/$defs/Made"}]}]}, schema["$defs"])


def test_every_variable_of_the_environment_is_reported() -> None:
    texts = [file.read_text() for file in (REPOSITORY / "hpsearch").rglob("*.py") if file.name != "environment.py"]
    read = set(re.findall(r"HPSEARCH_[A-Z_]*[A-Z]", "\n".join(texts)))
    assert read == {*environment.READ, *environment.GIVEN, *environment.INTERNAL}


def test_every_column_of_the_store_is_reported() -> None:
    columns = [column for table in metadata.sorted_tables for column in table.columns]
    assert [str(column) for column in columns if not (column.doc or "").endswith(".")] == []
    assert [table.name for table in metadata.sorted_tables if not table.info.get("about")] == []


def test_every_loss_state_and_exit_code_is_reported() -> None:
    assert preference.ABOUT.keys() == {*preference.PAIR_LOSSES, *preference.LABELLED_LOSSES}
    assert STATES.keys() == set(get_args(StudyStatus.model_fields["state"].annotation))
    used = {InputError.exit_code, Interrupted.exit_code, *endings.EXIT_CODES.values()}
    assert EXIT_CODES.keys() == used | {1}


def test_markdown_keeps_a_text_as_it_is() -> None:
    assert prose("<image> of *-classify, [a]") == r"\<image\> of \*-classify, \[a\]"
    assert prose("see https://x.org/a_b. And `a<b`") == "see <https://x.org/a_b>. And `a<b`"
