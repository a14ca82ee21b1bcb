"""A study file from a person's answers: commented, with ranges to search that suit the task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hpsearch.errors import cut
from hpsearch.propose.columns import Look
from hpsearch.spec.rows import ANYWHERE, FORMATS, RowFormat
from hpsearch.spec.schema import schema_line
from hpsearch.spec.tasks import TASKS, TaskFacts
from hpsearch.spec.yaml_text import scalar

TRIALS = 40
_ROWS_OF_A_TRIAL = 2000
_BASES = {
    True: ((12, "Qwen/Qwen2-VL-2B-Instruct"), (24, "Qwen/Qwen2.5-VL-3B-Instruct"), (0, "Qwen/Qwen2.5-VL-7B-Instruct")),
    False: ((12, "Qwen/Qwen2.5-1.5B-Instruct"), (24, "Qwen/Qwen2.5-3B-Instruct"), (0, "Qwen/Qwen2.5-7B-Instruct")),
}
"""Has images → (GiB, base) for cards with less memory than that; the last one for all larger ones. In 4 bit, with room
for activations; an estimate, not measured.
"""


@dataclass(frozen=True)
class Answers:
    study: str
    look: Look
    task: str
    base: str
    memory_gib: float
    hours: float
    columns: dict[str, str]
    """Role → column, for the roles that the task uses."""
    prompt: str | None
    """A template over columns, if the question is in several of them."""

    @property
    def facts(self) -> TaskFacts:
        return TASKS[self.task]


def propose_base(task: str, memory_gib: float) -> str:
    return next(base for below, base in _BASES[TASKS[task].has_images] if not below or memory_gib < below)


def row_format(task: str, roles: dict[str, str]) -> RowFormat:
    """The row format for these `roles`: the task's first one whose required roles are there."""
    formats = TASKS[task].row_formats
    return next((name for name in formats if set(FORMATS[name].needs) <= roles.keys()), formats[0])


def missing_roles(task: str, roles: dict[str, str], prompt: str | None) -> list[str]:
    """Roles that the task needs and that are missing. Images to be classified may all get the same question."""
    facts = FORMATS[row_format(task, roles)]
    needed = [role for role in facts.needs if role != facts.asks or prompt is None]
    if facts.asks and TASKS[task].learns == "class" and prompt is None and not TASKS[task].has_images:
        needed.append(facts.asks)
    needed += ["image"] if TASKS[task].has_images else []
    return [role for role in needed if role not in roles]


def fitting_columns(task: str, roles: dict[str, str], prompt: str | None) -> dict[str, str]:
    """The `roles` that such a study may name."""
    name = row_format(task, roles)
    facts, wanted = FORMATS[name], set(FORMATS[name].needs) | set(FORMATS[name].may_have) | ANYWHERE - {"stage"}
    if prompt is not None and facts.asks:
        wanted.discard(facts.asks)
    if not TASKS[task].has_images:
        wanted.discard("image")
    return {role: column for role, column in roles.items() if role in wanted}


def study_text(answers: Answers) -> str:
    """The study file; the caller checks that it loads."""
    sections = [
        [
            schema_line(),
            "# Made by `hpsearch new` after a look at the rows. Every field can be changed until the first trial.",
            f"study: {scalar(answers.study)}",
            f"task: {answers.task}  # {answers.facts.about}",
        ],
        ["model:", f"  base: {scalar(answers.base)}", "  quantization: nf4  # QLoRA; none is plain LoRA"],
        _data(answers),
        _lora(answers),
        ["training:", "  learning_rate: 1e-4", "  batch_size: 8  # rows per optimizer step"],
        ["objective: reward_accuracy  # the share of pairs with the higher reward for the chosen answer"]
        if _has_pairs(answers)
        else [],
        _budgets(answers),
        _search(answers),
    ]
    return "\n\n".join("\n".join(lines) for lines in sections if lines) + "\n"


def unused_columns(answers: Answers) -> list[str]:
    look = answers.look
    used = {*answers.columns.values(), *([look.split["column"]] if look.split else [])}
    used |= {name for name in look.columns if f"{{{name}}}" in (answers.prompt or "")}
    return [name for name in look.columns if name not in used]


def _has_pairs(answers: Answers) -> bool:
    return FORMATS[row_format(answers.task, answers.columns)].has_pairs


def _data(answers: Answers) -> list[str]:
    look, facts = answers.look, FORMATS[row_format(answers.task, answers.columns)]
    lines = ["data:", f"  source: {scalar(look.source)}", "  columns:"]
    for role, name in answers.columns.items():
        lines.append(f"    {role}: {scalar(name)}  # {look.columns[name].about}")
    if unused := unused_columns(answers):
        lines.append(f"    # not used: {', '.join(map(cut, unused))}")
    if "group" not in answers.columns:
        lines.append("    # group: COLUMN  # if rows belong together (a patient, a document): they stay in one split")
    if answers.prompt and facts.asks:
        lines.append(f"  prompt: {scalar(answers.prompt)}  # over several columns")
    elif facts.asks and facts.asks not in answers.columns:
        lines.append('  prompt: "What is in this image?"  # asked of every row')
    if answers.facts.has_images:
        if look.images:
            lines.append(f"  images: {scalar(look.images)}  # paths of images start here")
        lines.append("  image_size: 448  # at most so many pixels a side; smaller is faster")
    lines.append("  max_tokens: 1024  # longer rows are left out, counted and named")
    lines.append(f"  split: {scalar(look.split or {'train': 0.8, 'validation': 0.1, 'test': 0.1})}")
    return lines


def _lora(answers: Answers) -> list[str]:
    return [
        "lora:",
        "  r: 16",
        "  alpha: 32",
        *(["  dropout: 0.05"] if answers.facts.has_dropout else []),
        "  target_modules: all-linear",
    ]


def _budgets(answers: Answers) -> list[str]:
    fraction = min(1.0, max(0.01, round(_ROWS_OF_A_TRIAL / max(1, 0.8 * answers.look.num_rows), 2)))
    return [
        "budget:  # what one trial may spend",
        "  epochs: 1",
        f"  train_fraction: {fraction:g}  # of the train split; {answers.look.num_rows:,} rows in all",
        "  reports: 4  # validations, at each of which the pruner may stop it",
        f"  memory_gib: {answers.memory_gib:g}  # a trial that needs more can't be the best",
        "",
        "final:  # what the final training may spend",
        "  epochs: 3",
        "  reports: 12",
    ]


def _search(answers: Answers) -> list[str]:
    space: list[tuple[str, Any, str]] = [
        ("training.learning_rate", {"low": 1e-5, "high": 5e-4, "log": True}, "it matters most"),
        ("training.batch_size", [4, 8, 16], "rows per optimizer step"),
        ("lora.r", [8, 16, 32], "more can learn more, and takes more memory"),
        ("lora.alpha", [16, 32, 64], "the update is scaled by alpha / r"),
    ]
    if answers.facts.has_dropout:
        space.append(("lora.dropout", [0.0, 0.05, 0.1], "more where data is scarce"))
    if answers.facts.has("preference"):
        space.append(("preference.beta", {"low": 0.01, "high": 1.0, "log": True}, "how far from the reference model"))
    width = max(len(f"{knob}: {scalar(values)}") for knob, values, _ in space)
    return [
        "search:",
        f"  trials: {TRIALS}",
        "  sampler: tpe",
        "  pruner: median",
        f"  limits: {{hours: {answers.hours:g}}}  # no trial starts after so many",
        "  space:",
        *(f"    {f'{knob}: {scalar(values)}':<{width}}  # {why}" for knob, values, why in space),
    ]


def study_name(text: str) -> str:
    """A valid study name that is like `text`."""
    name = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "._-") else "_" for letter in text)
    return name.lstrip("._-")[:100] or "study"
