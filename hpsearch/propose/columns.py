"""What a data set's columns hold, and which role each seems to have. Proposals only: a person confirms them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpsearch.data.source import open_source
from hpsearch.errors import FieldError, InputError, cut, did_you_mean
from hpsearch.spec.data import DataSpec
from hpsearch.spec.tasks import Learns

if TYPE_CHECKING:
    from datasets import Dataset

LOOKED_AT = 1000
"""Number of rows whose values are read."""
_MOST_CLASSES = 20
_IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif")
_QUESTION_MARKS = ("?", "？", "؟")
_MOST = 0.8
_TEXTS = ("question", "answer", "label")
_SPLIT_NAMES = ("split", "subset", "fold")
_SPLITS = {"train": ("train", "training"), "validation": ("validation", "valid", "val", "dev"), "test": ("test",)}
_NAMES: dict[str, tuple[str, ...]] = {
    "messages": ("messages", "conversation", "conversations"),
    "chosen": ("chosen", "preferred", "accepted"),
    "rejected": ("rejected", "dispreferred"),
    "desirable": ("desirable", "is_desirable"),
    "question": ("question", "query", "instruction", "user", "input", "frage", "pregunta", "domanda", "pergunta"),
    "answer": (
        "answer", "response", "output", "assistant", "target", "reply", "antwort", "respuesta", "réponse", "reponse",
        "risposta", "resposta",
    ),
    "prompt": ("prompt",),
    "completion": ("completion",),
    "label": ("label", "class", "category", "diagnosis", "species", "klasse", "classe", "clase"),
    "group": (
        "patient", "patient_id", "subject", "subject_id", "case_id", "group", "img_id", "image_id", "document",
        "document_id", "doc_id", "author", "site",
    ),
    "id": ("id", "uid", "uuid", "row_id", "question_id", "qid"),
}  # fmt: skip
"""Role → usual names of such a column; the first that exists counts."""


@dataclass(frozen=True)
class Column:
    name: str
    kind: str
    """image, messages, label, text, number, truth value, nested or other."""
    about: str
    """For people: its content, with an example."""
    names_groups: bool = False
    """Whether several rows may belong to each of its values, such as a patient: many values, most of them repeated."""
    path: str | None = None
    """The path of an image, where it holds paths."""
    asks: bool = False
    """Whether its texts are questions: most of them end with a question mark."""


@dataclass(frozen=True)
class Look:
    """What the first rows of a source show."""

    source: str
    num_rows: int
    columns: dict[str, Column]
    roles: dict[str, str]
    """Role → the column that seems to have it."""
    split: dict[str, Any] | None
    """`data.split`, if a column says which split a row is in."""
    guessed: frozenset[str] = frozenset()
    """The roles that follow from what the columns hold, not from their names."""
    images: str | None = None
    """The folder that image paths start from, if it isn't that of the source."""

    @property
    def has_images(self) -> bool:
        return "image" in self.roles

    @property
    def learns(self) -> Learns:
        """What such rows are usually used to learn."""
        if {"chosen", "rejected"} <= self.roles.keys() or "desirable" in self.roles:
            return "preference"
        says = {"answer", "messages", "completion", "text"} & self.roles.keys()
        return "class" if "label" in self.roles and not says else "text"


def look_at(source: str, folder: Path) -> Look:
    """Opens `source`; a relative path starts at `folder`. No role is guessed yet: see `with_roles`. Raises InputError
    where it can't be read.
    """
    if not source.strip():
        raise InputError("name a file of rows, a folder or a data set on the hub")
    if "://" in source:
        raise InputError(f"{source} is a URL: download the rows first, and name the file")
    try:
        rows = open_source(DataSpec(source=source), folder).rows
    except FieldError as error:
        named = Path(source).name
        raise InputError(error.message if named in error.message else f"{source}: {error.message}") from None
    head = rows.select(range(min(LOOKED_AT, len(rows))))
    columns = {name: _column(name, head) for name in head.column_names}
    roles = _roles(columns, rows)
    return Look(source, len(rows), columns, roles, _split(columns, rows), images=_images(columns, folder, source))


def with_roles(look: Look, given: Mapping[str, str]) -> Look:
    """The look, where columns have the roles that a person has `given` them (role → column) and others are guessed
    again. Raises InputError where there is no such column.
    """
    for name in given.values():
        if name not in look.columns:
            raise InputError(f"there is no column {name!r}; {did_you_mean(name, list(look.columns))}")
    named = {role: name for role, name in look.roles.items() if role not in look.guessed}
    for role, name in given.items():
        of_texts = {"question", "answer", "label"} - given.keys() - ({"answer"} if role == "label" else set())
        named = {other: of for other, of in named.items() if not (of == name and role in _TEXTS and other in of_texts)}
        named[role] = name
    guessed = _guess(look, named)
    return replace(look, roles=named | guessed, guessed=frozenset(guessed))


def _guess(look: Look, roles: dict[str, str]) -> dict[str, str]:
    """Role → column of a question and its answer, or of a class, where what the columns hold leaves one choice."""
    if not {"messages", "chosen", "completion", "text", "label"}.isdisjoint(roles):
        return {}
    taken = {*roles.values(), *_SPLIT_NAMES, *_NAMES["id"]}
    free = [c for c in look.columns.values() if c.kind in ("text", "label") and c.name not in taken]
    free = [column for column in free if not column.names_groups]
    found = {}
    asking = [column for column in free if column.asks]
    if "question" not in roles and len(asking) == 1:
        found["question"] = asking[0].name
        free.remove(asking[0])
    question = (roles | found).get("question")
    if "answer" in roles or len(free) != 1 or free[0].asks:
        return found
    if question and look.columns[question].asks:
        return found | {"answer": free[0].name}
    return found | ({"label": free[0].name} if free[0].kind == "label" else {})


def _column(name: str, head: Dataset) -> Column:
    from datasets import ClassLabel, Image, Sequence, Value
    from datasets.features import Json, List

    feature = head.features[name]
    inner = feature.feature if isinstance(feature, Sequence | List) else feature
    if isinstance(inner, Image):
        return Column(name, "image", "an image" if inner is feature else "a list of images")
    values = [value for value in head[name] if value not in (None, "", [])]
    if not values:
        return Column(name, "other", "nothing in the first rows")
    first = values[0]
    if isinstance(feature, ClassLabel):
        return Column(name, "label", f"one of {len(feature.names)} classes: {_cut(', '.join(feature.names))}")
    if isinstance(first, list) and isinstance(first[0], dict) and {"role", "content"} <= first[0].keys():
        return Column(name, "messages", "a conversation")
    texts = first if isinstance(first, list) and isinstance(first[0], str) else [first]
    if all(isinstance(text, str) and text.lower().endswith(_IMAGE_ENDINGS) for text in texts):
        about = "paths of images" if texts is first else "the path of an image"
        return Column(name, "image", f"{about}, as {_cut(texts[0])}", path=texts[0])
    if isinstance(first, bool) and not isinstance(feature, Json):
        return Column(name, "truth value", f"true or false, as {str(first).lower()}")
    different = len(set(map(str, values)))
    is_mixed = isinstance(feature, Json) and not any(isinstance(value, dict | list) for value in values)
    if not (isinstance(inner, Value) or is_mixed) or texts is first:
        return Column(name, "nested" if isinstance(first, dict | list) else "other", _cut(str(first)))
    kind = "text" if is_mixed or isinstance(first, str) else "number"
    is_label = kind == "text" and 2 <= different <= min(_MOST_CLASSES, len(values) // 10)
    about = f"{different} different {'value' if different == 1 else 'values'}, as {_cut(repr(first))}"
    counts = Counter(map(str, values)).values()
    in_several = sum(count > 1 for count in counts) > len(counts) / 2
    is_group = not is_label and in_several and different > _MOST_CLASSES and " " not in str(first)
    asks = sum(str(value).rstrip().endswith(_QUESTION_MARKS) for value in values) > _MOST * len(values)
    return Column(name, "label" if is_label else kind, about, is_group, asks=asks)


def _roles(columns: dict[str, Column], rows: Dataset) -> dict[str, str]:
    lower = {name.lower().replace("-", "_").replace(" ", "_"): name for name in columns}
    found = {role: lower[name] for role, names in _NAMES.items() for name in reversed(names) if name in lower}
    image = next((column.name for column in columns.values() if column.kind == "image"), None)
    found |= {"image": image} if image else {}
    found = {role: name for role, name in found.items() if columns[name].kind != "nested"}
    fits = {"messages": ("messages",), "label": ("label", "truth value", "number")}
    found = {role: name for role, name in found.items() if columns[name].kind in fits.get(role, (columns[name].kind,))}
    if "chosen" in found and "rejected" in found:
        found.pop("answer", None)
    if not {"prompt", "completion"} <= found.keys():
        prompt = found.pop("prompt", None)
        found.pop("completion", None)
        found |= {"question": prompt} if prompt and "question" not in found else {}
    if "id" in found and len(rows.unique(found["id"])) < len(rows):
        del found["id"]
    if set(columns) == {"text"}:
        return {"text": "text"}
    if "text" in columns and {"question", "answer", "messages", "chosen", "completion"}.isdisjoint(found):
        found["question"] = "text"
    return found


def propose_prompt(columns: dict[str, Column], roles: dict[str, str]) -> str | None:
    """A template over columns, if the question seems to be in several of them."""
    if {"instruction", "input"} <= columns.keys() and roles.get("question") == "instruction":
        return "{instruction}[\n\n{input}]"
    context = next((name for name in ("context", "passage", "article") if name in columns), None)
    if context and columns[context].kind == "text" and "question" in roles:
        return f"{{{context}}}\n\n{{{roles['question']}}}"
    return None


def _images(columns: dict[str, Column], folder: Path, source: str) -> str | None:
    path = next((column.path for column in columns.values() if column.path), None)
    if path is None or (folder / source).parent.joinpath(path).is_file() or not (folder / path).is_file():
        return None
    return "."


def _split(columns: dict[str, Column], rows: Dataset) -> dict[str, Any] | None:
    name = next((name for name in _SPLIT_NAMES if name in columns), None)
    if name is None:
        return None
    there = {str(value).lower(): value for value in rows.unique(name) if value is not None}
    found = {split: there[word] for split, words in _SPLITS.items() for word in words if word in there}
    if "train" not in found:
        return None
    return {"column": name, "validation": 0.1, "test": 0.1} | found


def _cut(text: str, most: int = 50) -> str:
    return cut(" ".join(text.split()), most)
