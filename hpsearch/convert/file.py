"""Another tool's YAML file: every key is asked for by name, so that keys that nobody asked for can be reported."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NoReturn

from hpsearch.errors import InputError
from hpsearch.spec.yaml_limits import NotYaml, read_text, read_yaml

Reasons = tuple[tuple[tuple[str, ...], str], ...]
"""(patterns of keys, why hpsearch does not keep them); the first match counts."""


@dataclass(frozen=True)
class NotKept:
    """Keys of the file that the study does not use, and why."""

    keys: tuple[str, ...]
    why: str

    def __str__(self) -> str:
        return f"{', '.join(self.keys)}: {self.why}"


@dataclass
class ForeignFile:
    """The keys of one file. Keys without a value, with `false` or with `0` count as missing."""

    path: Path
    values: dict[str, Any]
    asked: set[str] = field(default_factory=set)

    def take(self, key: str, default: Any = None) -> Any:
        """The value of `key`, or `default` where it is missing; marks the key as read."""
        self.asked.add(key)
        value = self.values.get(key)
        return default if value is None else value

    def text(self, key: str) -> str | None:
        value = self.take(key)
        if value is not None and not isinstance(value, str | int | float):
            self.refuse(f"{key}: expected text, found {value!r}")
        return None if value is None or value == "" else str(value)

    def flag(self, key: str, default: bool = False) -> bool:
        value = self.take(key, default)
        return value.strip().lower() in ("true", "yes", "on", "1") if isinstance(value, str) else bool(value)

    def number(self, key: str, default: float) -> float:
        """YAML 1.1 reads `2e-5` as text; both tools take it as a number."""
        value = self.take(key, default)
        try:
            found = float(value) if not isinstance(value, bool) else math.nan
        except (TypeError, ValueError):
            found = math.nan
        if not math.isfinite(found):
            self.refuse(f"{key}: expected a number, found {value!r}")
        return found

    def whole(self, key: str, default: int) -> int:
        found = self.number(key, default)
        if found != int(found):
            self.refuse(f"{key}: expected a whole number, found {found:g}")
        return int(found)

    def names(self, key: str) -> list[str]:
        """A YAML list, or comma-separated names."""
        value = self.take(key, [])
        parts = value if isinstance(value, list) else str(value).split(",")
        return [name for part in parts if part is not None and (name := str(part).strip())]

    def section(self, key: str) -> dict[str, Any]:
        value = self.take(key, {})
        if not isinstance(value, dict):
            self.refuse(f"{key}: expected a mapping of keys, found {value!r}")
        return {str(name): inner for name, inner in value.items()}

    def refuse(self, words: str) -> NoReturn:
        raise InputError(f"{self.path}: {words}")

    def find(self, name: str) -> Path | None:
        """A file named in the YAML, relative to the working directory or any folder above the YAML."""
        folders = [Path.cwd(), *self.path.resolve().parents]
        return next((found for folder in folders if (found := folder / Path(name).expanduser()).exists()), None)

    def left_over(self, reasons: Reasons) -> list[NotKept]:
        """Keys of the file that were not read, grouped by reason."""
        by_reason: dict[str, list[str]] = {}
        for key, value in self.values.items():
            if key not in self.asked and value not in (None, False, "", 0, [], {}):
                by_reason.setdefault(self._reason(key, reasons), []).append(key)
        return [NotKept(tuple(keys), why) for why, keys in by_reason.items()]

    def _reason(self, key: str, reasons: Reasons) -> str:
        for patterns, why in reasons:
            if any(fnmatchcase(key, pattern) for pattern in patterns):
                return why
        near = get_close_matches(key, sorted(self.asked - set(self.values)), n=1, cutoff=0.85)
        return f"hpsearch knows no such key; did you mean {near[0]}?" if near else "hpsearch has no setting for it"


def read_foreign(path: Path) -> ForeignFile:
    """Raises InputError where the file can't be read or is no mapping of keys."""
    values = read_mapping(path)
    return ForeignFile(path, {str(key): value for key, value in values.items()})


def read_mapping(path: Path) -> dict[Any, Any]:
    """A YAML or JSON file of keys; raises InputError."""
    if not path.is_file():
        raise InputError(f"{path}: {'is a folder; give the YAML in it' if path.is_dir() else 'there is no such file'}")
    try:
        values = read_yaml(read_text(path))
    except OSError as error:
        raise InputError(f"{path}: can't be read: {error.strerror}") from None
    except NotYaml as error:
        raise InputError(f"{path}: {error}") from None
    if not isinstance(values, dict):
        found = "is empty" if values is None else "holds a list" if isinstance(values, list) else "holds a text"
        raise InputError(f"{path}: {found}; expected keys and values, as in  learning_rate: 1e-4")
    return values
