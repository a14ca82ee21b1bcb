"""The questions: where the rows are, what is to be learned, the card, the base, the time. Each with a proposal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

from hpsearch.errors import InputError, cut, did_you_mean
from hpsearch.propose.columns import Look, look_at, propose_prompt, with_roles
from hpsearch.propose.study import Answers, fitting_columns, missing_roles, propose_base, row_format
from hpsearch.spec.model import TINY_BASES
from hpsearch.spec.rows import FORMATS
from hpsearch.spec.tasks import TASKS, find_task

MEMORY_GIB, HOURS = 16.0, 8.0
_NONE = "none"
_SHOWN = {"chosen": "chosen answer", "rejected": "rejected answer", "label": "label (the class)"}
"""Role → how it is asked for, where its name alone says too little."""
T = TypeVar("T")
Say = Callable[[str], None]


class Ask(Protocol):
    def __call__(self, question: str, default: str | None) -> str:
        """The person's answer; `default` if they only press Enter."""


@dataclass(frozen=True)
class Given:
    """Answers from the command line; None is asked."""

    data: str | None = None
    task: str | None = None
    base: str | None = None
    memory_gib: float | None = None
    hours: float | None = None
    columns: dict[str, str] = field(default_factory=dict)
    """Role → column."""


def ask_for_rows(given: Given, folder: Path, ask: Ask, say: Say) -> Look:
    """A look at the rows; relative paths start at `folder`. Raises InputError where `given` names none that can be
    read.
    """
    question = "Your rows (a file, folder or hub name)"
    look = _until_right(given.data, lambda text: look_at(text, folder), ask, say, question)
    look = with_roles(look, given.columns)
    say(_format_look(look))
    return look


def ask_for_study(study: str, look: Look, given: Given, ask: Ask, say: Say) -> Answers:
    """Asks what `given` doesn't answer. After a wrong answer it asks again.

    Raises:
        InputError: a value of the command line is wrong.
    """
    tasks = [row for row in TASKS.values() if row.has_images <= look.has_images and not row.has("curriculum")]
    if given.task is None:
        say("\n".join(["Tasks:", *(f"  {row.name:<16} {row.about}" for row in tasks)]))
    task = _until_right(given.task, _task, ask, say, "Task, one of those above", _proposed_task(look))
    roles = _ask_for_columns(look, task, given.columns, ask, say)
    prompt = propose_prompt(look.columns, roles)
    columns = fitting_columns(task, roles, prompt)
    asks = FORMATS[row_format(task, columns)].asks
    for role in given.columns:
        if role not in columns and not (prompt and role == asks):
            raise InputError(f"--columns: {task} takes no {role} column here")
    memory_gib = _until_right(
        given.memory_gib, _positive("--memory-gib"), ask, say, "Memory of the card in GiB", f"{MEMORY_GIB:g}"
    )
    base = _until_right(given.base, _base, ask, say, "Base model (hub name or folder)", propose_base(task, memory_gib))
    hours = _until_right(given.hours, _positive("--hours"), ask, say, "Hours that the search may take", f"{HOURS:g}")
    return Answers(study, look, task, base, memory_gib, hours, columns, prompt)


def _until_right(
    given: object, read: Callable[[str], T], ask: Ask, say: Say, question: str, default: str | None = None
) -> T:
    if given is not None:
        return read(str(given))
    while True:
        answer = ask(question, default)
        try:
            return read(answer)
        except InputError as error:
            say(str(error))


def _ask_for_columns(look: Look, task: str, given: dict[str, str], ask: Ask, say: Say) -> dict[str, str]:
    """Role → column: those that were recognized, those that are `given`, those that were guessed, which the person
    confirms, and those that the task lacks.
    """
    read = _column_of(look)
    given = dict(given)
    used = fitting_columns(task, look.roles, None)
    for role in [role for role in look.roles if role in look.guessed and role in used]:
        given[role] = _until_right(None, read, ask, say, f"Column of the {_shown(role)}", look.roles[role])
    roles = _with_label(look := with_roles(look, given))
    while missing := missing_roles(task, roles, propose_prompt(look.columns, roles)):
        given[missing[0]] = _until_right(None, read, ask, say, f"Column of the {_shown(missing[0])}")
        roles = _with_label(look := with_roles(look, given))
    groups = [column.name for column in look.columns.values() if column.names_groups]
    groups = [name for name in groups if name not in roles.values()]
    if groups and "group" not in roles:
        shown = f"Column that says which rows belong together, as a patient's ({' or '.join(groups)})"
        group = _until_right(None, lambda text: text if text == _NONE else read(text), ask, say, shown, _NONE)
        roles |= {"group": group} if group != _NONE else {}
    return roles


def _with_label(look: Look) -> dict[str, str]:
    """The roles; where answers are few, they are labels too, so that each split has its share of each."""
    answer = look.roles.get("answer")
    if answer is None or "label" in look.roles or look.learns != "text" or look.columns[answer].kind != "label":
        return look.roles
    return look.roles | {"label": answer}


def _shown(role: str) -> str:
    return _SHOWN.get(role, role)


def _format_look(look: Look) -> str:
    role_of = {name: f"{role} (a guess)" if role in look.guessed else role for role, name in look.roles.items()}
    names = [
        f"  {cut(c.name):<16} {c.about}" + (f"  → {role_of[c.name]}" if c.name in role_of else "")
        for c in look.columns.values()
    ]
    return "\n".join([f"{look.num_rows:,} row{'' if look.num_rows == 1 else 's'} with these columns:", *names])


def _proposed_task(look: Look) -> str:
    sections = {"class": frozenset({"head"}), "preference": frozenset({"preference"})}.get(look.learns, frozenset())
    found = find_task(look.learns, has_images=look.has_images, sections=sections)  # type: ignore[arg-type]
    assert found is not None
    return found


def _task(text: str) -> str:
    if text not in TASKS:
        raise InputError(f"there is no task {text!r}; {did_you_mean(text, list(TASKS))}")
    if TASKS[text].has("curriculum"):
        plain = find_task(TASKS[text].learns, has_images=TASKS[text].has_images)
        raise InputError(
            f"{text} learns in stages, which can't be asked for here: take {plain}, and add them to the file"
        )
    return text


def _base(text: str) -> str:
    if not text.strip():
        raise InputError("--base: expected a hub name or a folder")
    if text.startswith("tiny:") and text not in TINY_BASES:
        raise InputError(f"--base: there is no {text!r}; {did_you_mean(text, list(TINY_BASES))}")
    return text


def _positive(option: str) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = 0
        if not 0 < number < float("inf"):
            raise InputError(f"{option}: expected a number above 0, found {text!r}")
        return number

    return read


def _column_of(look: Look) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in look.columns:
            raise InputError(f"there is no column {text!r}; {did_you_mean(text, list(look.columns))}")
        return text

    return read
