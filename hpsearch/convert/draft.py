"""A draft of a study file: values by section, comments, what was not kept, and what is still to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hpsearch.convert.file import ForeignFile, NotKept
from hpsearch.convert.parts import Part
from hpsearch.spec.tasks import Learns, Section, find_task

SECTIONS = ("model", "data", "lora", "preference", "training", "budget", "final")


@dataclass
class Draft:
    """The study while it is read. Keys are dotted: `training.learning_rate`."""

    file: ForeignFile
    tool: str
    has_images: bool = False
    is_plain: bool = False
    """Continued pretraining on plain text."""
    learns: Learns = "text"
    values: dict[str, dict[str, Any]] = field(default_factory=lambda: {name: {} for name in SECTIONS})
    comments: dict[str, str] = field(default_factory=dict)
    not_kept: list[NotKept] = field(default_factory=list)
    to_do: list[str] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)

    @property
    def task(self) -> str:
        sections: frozenset[Section] = frozenset({"preference"} if self.learns == "preference" else ())
        found = find_task(self.learns, has_images=self.has_images, sections=sections)
        assert found is not None
        return found

    def set(self, key: str, value: Any, comment: str | None = None) -> None:
        section, name = key.split(".")
        self.values[section][name] = value
        if comment:
            self.comments[key] = comment

    def get(self, key: str) -> Any:
        section, name = key.split(".")
        return self.values[section][name]

    def drop(self, key: str, why: str) -> None:
        """Notes that the file's `key` is not kept, or is replaced; the reader sets the new value itself."""
        value = self.file.values.get(key)
        shown = f"{key}: {value}" if isinstance(value, str | int | float) else key
        self.not_kept.append(NotKept((shown,), why))
