"""Pages of the store's tables and of the environment's variables."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, Float, Integer, LargeBinary, Table, types

from docs.reference.markdown import code, page, prose, table
from hpsearch.environment import GIVEN, INTERNAL, READ
from hpsearch.store.tables import metadata

_KINDS: dict[type[types.TypeEngine], str] = {
    Boolean: "true or false",
    Integer: "whole number",
    Float: "number",
    LargeBinary: "bytes",
}


def store() -> str:
    return page(
        "The store",
        "hpsearch keeps its tables beside Optuna's in one database: SQLite, PostgreSQL, MySQL or MariaDB. A trial's "
        "parameters, reports and values are in Optuna's tables, so `optuna` and `optuna-dashboard` open it too. "
        "`hpsearch_alembic_version` holds the version of ours; `hpsearch store upgrade` brings them up to date.",
        "Times are seconds since 1970, by the database's own clock. A study that was deleted with Optuna's tools is "
        "gone: its rows here are removed before the next study is made.",
        *(part for each in metadata.sorted_tables for part in _table(each)),
    )


def _table(each: Table) -> list[str]:
    rows = [[code(column.name), _kind(column), _rules(column), prose(column.doc or "")] for column in each.columns]
    return [f"## {each.name}", prose(each.info["about"]), table(["column", "type", "rules", "what it is"], rows)]


def _kind(column: Column[object]) -> str:
    return next((words for kind, words in _KINDS.items() if isinstance(column.type, kind)), "text")


def _rules(column: Column[object]) -> str:
    rules = (
        ["primary key"] * column.primary_key
        + ["unique"] * bool(column.unique)
        + ["may be empty"] * bool(column.nullable)
    )
    return ", ".join(rules)


def environment() -> str:
    def rows(variables: dict[str, str]) -> list[list[str]]:
        return [[code(name), prose(text)] for name, text in variables.items()]

    return page(
        "Environment variables",
        "## For you to set",
        table(["variable", "what it is"], rows(READ)),
        "hpsearch's libraries have their own: `HF_HOME`, `HF_TOKEN` and `HF_HUB_OFFLINE` of the Hugging Face hub, "
        "`CUDA_VISIBLE_DEVICES`, and `AWS_*` or `GOOGLE_APPLICATION_CREDENTIALS` for buckets.",
        "## Given to the command of --notify",
        table(["variable", "what it is"], rows(GIVEN)),
        "## Between hpsearch's own processes",
        "Not for you to set.",
        table(["variable", "what it is"], rows(INTERNAL)),
    )
