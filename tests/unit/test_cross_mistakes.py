"""Fields of a study file that are valid alone but not together: reported with the line and what to write instead."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import yaml

from hpsearch.errors import StudyFileErrors
from hpsearch.spec import load_study
from tests.unit.study_file_fixtures import TEXT

CLASSIFY = """\
study: demo
task: vlm-classify
model: {base: "tiny:gemma3"}
data:
  source: rows.jsonl
  columns: {image: i, label: kind}
search:
  space:
    head.hidden: [8, 16]
"""
TEXTS = """\
study: demo
task: text-classify
model: {base: "tiny:qwen2"}
data:
  source: rows.jsonl
  columns: {question: q, label: kind}
search:
  space:
    head.hidden: [8, 16]
"""
CURRICULUM = """\
study: demo
task: text-curriculum
model: {base: "tiny:qwen2"}
data:
  source: rows.jsonl
  columns: {question: q, answer: a, stage: level}
curriculum:
  stages:
    - {name: easy, values: ["1", "2"]}
    - {name: hard}
search:
  space:
    curriculum.learning_rate_decay: [0.5, 1.0]
"""
MORE = {
    "text": TEXT,
    "classify": CLASSIFY,
    "texts": TEXTS,
    "curriculum": CURRICULUM,
}


def mistakes(folder: Path, text: str) -> list[tuple[str, int | None, str]]:
    file = folder / "study.yaml"
    file.write_text(text)
    try:
        load_study(file)
    except StudyFileErrors as errors:
        return [(mistake.key, mistake.line, mistake.message) for mistake in errors.mistakes]
    return []


@pytest.mark.parametrize("name", MORE)
@pytest.mark.parametrize(
    "more",
    [
        "",
        "objective: loss\n",
        "objective: balanced_accuracy\n",
        "objective: [balanced_accuracy, loss]\n",
        "evaluation: {metrics: [accuracy, macro_f1]}\n",
    ],
)
def test_these_are_right(tmp_path: Path, name: str, more: str) -> None:
    assert mistakes(tmp_path, MORE[name] + more) == []


@pytest.mark.parametrize(
    ("text", "change", "expected"),
    [
        # metrics that the task does not have
        (
            CLASSIFY,
            ("", "objective: token_f1\n"),
            ("objective", 10, "token_f1 does not fit task vlm-classify; it has: loss, accuracy, balanced_accuracy, "),
        ),
        (CLASSIFY, ("", "objective: [loss, bleu]\n"), ("objective", 10, "bleu does not fit task vlm-classify; ")),
        (CLASSIFY, ("", "objective: bertscore\n"), ("objective", 10, "bertscore does not fit task vlm-classify; ")),
        (
            CLASSIFY,
            ("", "evaluation:\n  max_new_tokens: 9\n  metrics: [rouge1]\n"),
            ("evaluation.metrics", 12, "rouge1 does not fit task vlm-classify; "),
        ),
        (TEXT, ("", "objective: bertscore\n"), ("objective", 10, "bertscore is for evaluations: ")),
        (
            TEXT,
            ("", "evaluation: {metrics: [loss]}\n"),
            ("evaluation.metrics", 10, "loss is told with every "),
        ),
        (
            TEXT,
            ("", "evaluation: {metrics: [bertscore]}\n"),
            ("evaluation.bertscore_model", 10, "is missing: the metric bertscore needs it"),
        ),
        (TEXT, ("", "objective: [loss, bleu, loss]\n"), ("objective", 10, "names an objective twice")),
        # several objectives
        (
            TEXT,
            ("search:\n", "objective: [loss, bleu]\nsearch:\n  pruner: hyperband\n"),
            ("search.pruner", 9, "trials with several objectives can't be pruned (Optuna compares one value): "),
        ),
        (
            TEXT,
            ("search:\n", "objective: [loss, bleu]\nsearch:\n  sampler: cmaes\n"),
            ("search.sampler", 9, "cmaes knows one objective only (Optuna); with several take tpe, gp, random, "),
        ),
        (TEXT, ("answer: a", "answer: q"), ("data.columns.answer", 6, "is the same column as question")),
        (TEXTS, ("label: kind", "label: q"), ("data.columns.label", 6, "is the same column as question")),
        # a classifier's fields elsewhere, and others' with a classifier
        (TEXT, ("", "    head.hidden: [8]\n"), ("search.space.head.hidden", 10, "task text-sft has no classific")),
        (TEXT, ("", "head:\n  hidden: 8\n"), ("head", 10, "task text-sft has no classification head")),
        (CLASSIFY, ("image: i, label: kind", "image: i"), ("data.columns.label", 6, "is missing: task vlm-classify")),
        (CLASSIFY, ("image: i, ", ""), ("data.columns.image", 6, "is missing: task vlm-classify needs an image")),
        (
            CLASSIFY,
            ("label: kind", "label: kind, answer: a"),
            ("data.columns.answer", 6, "does not go together with question-label rows"),
        ),
        (
            CLASSIFY,
            ("", "evaluation:\n  prompts: {static: Look closely.}\n"),
            ("evaluation.prompts", 11, "task vlm-classify takes none: its head is trained without"),
        ),
        (TEXTS, ("question: q, ", ""), ("data.columns.question", 6, "is missing: without it, or a data.prompt over ")),
        (TEXTS, ("q, label", "q, image: i, label"), ("data.columns.image", 6, "task text-classify takes no images")),
        (TEXT, ("columns: {", "balance: 5\n  columns: {"), ("data.balance", 6, "needs data.columns.label: ")),
        (TEXT, ("columns: {", "labels: {a: b}\n  columns: {"), ("data.labels", 6, "needs data.columns.label: ")),
        # curricula
        (
            TEXT,
            ("", "    curriculum.order: [stages, random]\n"),
            ("search.space.curriculum.order", 10, "task text-sft has no curriculum"),
        ),
        (
            TEXT,
            ("", "curriculum:\n  stages: [{name: easy}]\n"),
            ("curriculum.stages", 11, "task text-sft has no stages; did you mean task: text-curriculum?"),
        ),
        (
            CLASSIFY,
            ("", "curriculum:\n  order: random\n"),
            ("curriculum", 10, "task vlm-classify has no stages; did you mean task: vlm-curriculum?"),
        ),
        (CURRICULUM, (", stage: level", ""), ("data.columns.stage", 6, "is missing: it says which stage a row ")),
        (
            CURRICULUM,
            ('    - {name: easy, values: ["1", "2"]}\n    - {name: hard}\n', "    []\n"),
            ("curriculum.stages", 8, "is missing: task text-curriculum learns in stages"),
        ),
        (
            CURRICULUM,
            ("{name: hard}", '{name: hard, values: ["3", "2"]}'),
            ("curriculum.stages.1", 10, "'2' belongs to stage 'easy' already"),
        ),
        (CURRICULUM, ("{name: hard}", "{name: easy}"), ("curriculum.stages.1", 10, "there is a stage 'easy' already")),
        (
            CURRICULUM,
            ("  stages:\n", "  order: random\n  stages:\n"),
            (
                "search.space.curriculum.learning_rate_decay",
                14,
                "means nothing with curriculum.order: random, which has one schedule",
            ),
        ),
        (
            CURRICULUM,
            ("", "budget: {max_steps: 1}\n"),
            ("budget.max_steps", 14, "leaves a stage without a step: there are 2 stages"),
        ),
        (
            CURRICULUM,
            ("", "final: {max_steps: 1}\n"),
            ("final.max_steps", 14, "leaves a stage without a step: there are 2 stages"),
        ),
        # splits
        (
            TEXT,
            ("columns: {", "held_out: shared.json\n  split: {column: part}\n  columns: {"),
            ("data.held_out", 6, "goes with a split by fractions, not with a split column"),
        ),
        (
            TEXT,
            ("columns: {", "split: {column: part, validation: 0.5, test: 0.5}\n  columns: {"),
            ("data.split", 6, "validation and test leave no rows for train"),
        ),
        (
            TEXT,
            ("columns: {", "group_duplicates: true\n  columns: {"),
            ("data.group_duplicates", 6, "is about images, and there is no data.columns.image"),
        ),
    ],
    ids=lambda case: case[0] if isinstance(case, tuple) and len(case) == 3 else "",
)
def test_each_mistake_is_reported_once_with_its_line(
    tmp_path: Path, text: str, change: tuple[str, str], expected: tuple[str, int, str]
) -> None:
    old, new = change
    changed = text.replace(old, new, 1) if old else text + new
    assert changed != text
    ((key, line, message),) = mistakes(tmp_path, changed)
    assert (key, line) == expected[:2]
    assert message.startswith(expected[2])


@pytest.mark.parametrize(
    "more",
    [
        "budget: {max_steps: 2}\n",
        "    curriculum.order: [stages, random]\n",
        "    training.learning_rate: [1e-4]\nobjective: [bleu, loss]\n",
    ],
)
def test_what_looks_like_them_is_right(tmp_path: Path, more: str) -> None:
    assert mistakes(tmp_path, CURRICULUM + more) == []


def test_one_training_may_have_fewer_steps_than_stages(tmp_path: Path) -> None:
    text = CURRICULUM.replace("  stages:\n", "  order: sequential\n  stages:\n")
    text = text.replace("curriculum.learning_rate_decay: [0.5, 1.0]", "lora.r: [8]")
    assert mistakes(tmp_path, text + "budget: {max_steps: 1}\n") == []


@pytest.mark.parametrize("sampler", ["tpe", "gp", "random", "qmc", "grid"])
def test_samplers_that_take_several_objectives(tmp_path: Path, sampler: str) -> None:
    text = TEXT.replace("search:\n", f"objective: [loss, bleu]\nsearch:\n  pruner: none\n  sampler: {sampler}\n")
    assert mistakes(tmp_path, text) == []


WRONG = "training: {batch_size: 0}\n"


@pytest.mark.parametrize(
    ("text", "more", "expected"),
    [
        (TEXT, "objective: accurracy\n", "objective"),
        (TEXT, "head: {hidden: 8}\n", "head"),
        (TEXT.replace("[8, 16]", "[]"), "head: {hidden: 8}\n", "head"),
        (CURRICULUM, "budget: {max_steps: 1, reports: 0}\n", "budget.max_steps"),
        (CLASSIFY.replace("{image: i, label: kind}", "{image: i, label: kind, answer: a}"), "", "data.columns.answer"),
        (TEXT.replace("source: rows.jsonl", "max_tokens: 0"), "objective: macro_f1\n", None),
    ],
)
def test_mistakes_between_valid_fields_are_told_beside_wrong_fields(
    tmp_path: Path, text: str, more: str, expected: str | None
) -> None:
    found = [key for key, _, _ in mistakes(tmp_path, text + more + WRONG)]
    assert "training.batch_size" in found
    assert expected is None or expected in found


@pytest.mark.parametrize("name", MORE)
def test_a_wrong_field_is_one_mistake(tmp_path: Path, name: str) -> None:
    """Nothing is told of fields that would fit the right value, whatever it is."""
    study = yaml.safe_load(MORE[name])
    keys = [(section,) for section in study] + [
        (s, key) for s in study if isinstance(study[s], dict) for key in study[s]
    ]
    for path in keys:
        wrong = copy.deepcopy(study)
        (wrong if len(path) == 1 else wrong[path[0]])[path[-1]] = {"no": {"no": "value"}}
        found = [key for key, _, _ in mistakes(tmp_path, yaml.safe_dump(wrong))]
        assert found, path
        assert found == [key for key in dict.fromkeys(found) if key.startswith(".".join(path))], path
        if path[1:]:
            wrong[path[0]][f"{path[1]}x"] = wrong[path[0]].pop(path[1])
            found = [key for key, _, _ in mistakes(tmp_path, yaml.safe_dump(wrong))]
            assert {*found} <= {f"{'.'.join(path)}x", ".".join(path)}, path


@pytest.mark.parametrize(("section", "others"), [("curiculum", ["head"]), ("lessons", [])])
def test_an_unknown_section_stands_for_the_nearest_or_for_any(tmp_path: Path, section: str, others: list[str]) -> None:
    text = CURRICULUM.replace("curriculum:\n", f"{section}:\n") + "head: {hidden: 8}\n"
    assert [key for key, _, _ in mistakes(tmp_path, text)] == [section, *others]
