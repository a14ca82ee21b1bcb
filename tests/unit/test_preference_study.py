"""A study of preferences: which fields fit together, the errors for those that don't, and what a trial is given."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpsearch.errors import StudyFileErrors
from hpsearch.spec import StudySpec, load_study
from hpsearch.spec.load import dump_study

PAIRS = """\
study: demo
task: text-preference
model: {base: "tiny:qwen2"}
data:
  source: rows.jsonl
  columns: {question: q, chosen: c, rejected: r}
"""
ANSWERS = PAIRS.replace("chosen: c, rejected: r", "answer: a, desirable: d") + "preference: {loss: kto}\n"
SEARCH = "search:\n  space:\n    preference.beta: {low: 0.01, high: 1, log: true}\n"


def loaded(folder: Path, text: str) -> StudySpec:
    (folder / "study.yaml").write_text(text)
    return load_study(folder / "study.yaml").spec


def mistake(folder: Path, text: str) -> tuple[str, str]:
    with pytest.raises(StudyFileErrors) as errors:
        loaded(folder, text)
    (found,) = errors.value.mistakes
    return found.key, found.message


@pytest.mark.parametrize(
    "text",
    [
        PAIRS,
        ANSWERS,
        PAIRS.replace("question: q, ", ""),
        PAIRS.replace("question", "prompt"),
        ANSWERS.replace("question", "prompt").replace("answer: a", "completion: a"),
        PAIRS.replace("text-", "vlm-").replace("question: q", "image: i, question: q"),
        PAIRS + SEARCH + "    preference.loss: [sigmoid, ipo, orpo]\nobjective: reward_accuracy\n",
        PAIRS + "objective: [ranking_accuracy, token_f1, reward_margin]\n",
        PAIRS + "lora: {dropout: 0.0}\n",
        PAIRS + "preference: {loss: exo_pair, label_smoothing: 1e-3}\n",
    ],
)
def test_these_are_right_and_load_again_as_they_are(tmp_path: Path, text: str) -> None:
    spec = loaded(tmp_path, text)
    assert loaded(tmp_path, dump_study(spec)) == spec
    assert spec.lora.dropout == 0.0, "what is left out is none"
    assert spec.with_values({"preference.beta": 0.7}).preference.beta == 0.7


@pytest.mark.parametrize(
    ("text", "key", "message"),
    [
        (
            PAIRS + "lora: {dropout: 0.1}\n",
            "lora.dropout",
            "task text-preference is trained without dropout, as in trl",
        ),
        (PAIRS + "search: {space: {lora.dropout: [0.0, 0.1]}}\n", "search.space.lora.dropout", "is trained without"),
        (PAIRS + "preference: {loss: kto}\n", "preference.loss", "kto does not go with pairs of chosen and rejected; "),
        (ANSWERS.replace("kto", "ipo"), "preference.loss", "ipo does not go with single answers; there are: kto, apo_"),
        (
            PAIRS + SEARCH + "    preference.loss: [sigmoid, kto]\nobjective: reward_accuracy\n",
            "search.space.preference.loss",
            "kto does not go with pairs",
        ),
        (PAIRS + "preference: {loss: exo_pair}\n", "preference.label_smoothing", "exo_pair needs more than 0"),
        (PAIRS + SEARCH, "objective", "trials with another preference.beta have another loss: take reward_accuracy"),
        (PAIRS + SEARCH + "objective: reward_margin\n", "objective", "have another reward_margin: take reward_acc"),
        (ANSWERS + "objective: ranking_accuracy\n", "objective", "ranking_accuracy needs rows with a chosen and"),
        (PAIRS.replace("chosen: c, ", ""), "data.columns.chosen", "is missing: task text-preference takes preference"),
        (PAIRS.replace("question: q", "image: i, question: q"), "data.columns.image", "did you mean task: vlm-pref"),
        (
            PAIRS.replace("text-preference", "text-sft").replace("chosen: c, rejected: r", "answer: a")
            + "preference: {beta: 1}\n",
            "preference",
            "task text-sft has no preferences to learn",
        ),
        (PAIRS + "preference: {beta: 0}\n", "preference.beta", "must be above 0"),
        (PAIRS + "objective: accuracy\n", "objective", "accuracy does not fit task text-preference; it has: loss, "),
    ],
)
def test_these_are_reported(tmp_path: Path, text: str, key: str, message: str) -> None:
    found = mistake(tmp_path, text)
    assert found[0] == key
    assert message in found[1]
