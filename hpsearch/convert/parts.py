"""The data sets of a foreign file: where each is, and what its rows look like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from hpsearch.convert.prompts import joined, merged

ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "system": "system",
}
"""The speaker's role in chat data sets → in chat templates."""

Form = Literal["pairs", "turns", "template", "text", "unknown"]


@dataclass(frozen=True)
class Part:
    """One data set.

    `form` is the row format: `pairs` joins the question's columns and adds the answer, `turns` is a conversation,
    `template` puts columns into a fixed text, `text` is plain text in the column `answer`, `unknown` needs a person.
    """

    name: str
    """A hub name, or the absolute path of a file or folder."""
    form: Form
    is_local: bool = False
    config: str | None = None
    split: str = "train"
    data_files: tuple[str, ...] = ()
    revision: str | None = None
    limit: int | None = None
    questions: tuple[str, ...] = ()
    between: str = "\n"
    answer: str = ""
    chosen: str | None = None
    rejected: str | None = None
    desirable: str | None = None
    """Columns of preferences: two answers, or a label whether the single answer is desirable."""
    system: str | None = None
    with_input: str = ""
    without_input: str = ""
    messages: str = "messages"
    role: str = "role"
    content: str = "content"
    roles: tuple[tuple[str, str], ...] = tuple(ROLES.items())
    in_pieces: bool = False
    """Whether the content of a turn is a list of typed parts."""
    images: str | None = None
    image_folder: str | None = None

    def columns(self) -> dict[str, str] | None:
        """hpsearch's columns, where it can read the rows unchanged."""
        whole = not (self.data_files or self.revision or self.limit or "[" in self.split or "+" in self.split)
        if not whole or self.images or self.in_pieces:
            return None
        if self.is_judged:
            return self._judged_columns()
        if self.form == "text" and not self.name.endswith(".txt"):
            return {"text": self.answer}
        if self.form == "pairs" and self.system is None:
            asked = {"question": self.questions[0]} if len(self.questions) == 1 else {}
            return {**asked, "answer": self.answer} if asked or self.prompt else None
        if self.form == "template":
            return {"completion": self.answer} if self.prompt else None
        said_as_meant = self.roles == tuple(ROLES.items()) or all(said == meant for said, meant in self.roles)
        if self.form == "turns" and (self.role, self.content) == ("role", "content") and said_as_meant:
            return {"messages": self.messages}
        return None

    @property
    def is_judged(self) -> bool:
        """Whether its rows hold preferences."""
        return bool(self.chosen or self.desirable)

    def _judged_columns(self) -> dict[str, str] | None:
        if self.form != "pairs" or self.system or (len(self.questions) > 1 and not self.prompt):
            return None
        asked = {"question": self.questions[0]} if len(self.questions) == 1 else {}
        if self.chosen and self.rejected:
            return {**asked, "chosen": self.chosen, "rejected": self.rejected}
        return {**asked, "answer": self.answer, "desirable": str(self.desirable)}

    @property
    def prompt(self) -> str | None:
        """`data.prompt` that gives the file's question, where it needs more than one column."""
        if self.form == "pairs" and len(self.questions) > 1:
            return joined(self.questions, self.between)
        if self.form != "template":
            return None
        places = dict(zip(("instruction", "input"), self.questions, strict=True))
        return merged(self.with_input, self.without_input, places | {"system": self.system or ""})

    def for_script(self) -> dict[str, Any]:
        """The part in the form that the conversion script reads."""
        return {
            "load": self._load(),
            "limit": self.limit,
            "form": self.form,
            "questions": list(self.questions),
            "between": self.between,
            "answer": self.answer,
            "chosen": self.chosen,
            "rejected": self.rejected,
            "desirable": self.desirable,
            "system": self.system,
            "with_input": self.with_input,
            "without_input": self.without_input,
            "messages": self.messages,
            "role": self.role,
            "content": self.content,
            "roles": dict(self.roles),
            "images": self.images,
            "image_folder": self.image_folder,
        }

    def _load(self) -> dict[str, Any]:
        """The arguments of `datasets.load_dataset`."""
        if self.is_local and self.name.rpartition(".")[2] in ("json", "jsonl", "csv", "parquet", "txt"):
            kind = self.name.rpartition(".")[2].replace("jsonl", "json").replace("txt", "text")
            return {"path": kind, "data_files": [self.name], "split": self.split}
        given = {
            "path": self.name,
            "name": self.config,
            "data_files": list(self.data_files) or None,
            "split": self.split,
            "revision": self.revision,
        }
        return {key: value for key, value in given.items() if value is not None}
