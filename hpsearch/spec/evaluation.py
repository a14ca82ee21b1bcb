"""How a model is judged: which metrics, and which prompts it is tried with."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field

from hpsearch.spec.base import Spec

MetricName = Literal[
    "exact_match",
    "exact_match_raw",
    "token_f1",
    "rouge1",
    "rougeL",
    "bleu",
    "accuracy",
    "balanced_accuracy",
    "macro_f1",
    "bertscore",
]
METRIC_NAMES: tuple[str, ...] = get_args(MetricName)

ObjectiveName = Literal["loss", MetricName]
"""What a search can aim at: the validation loss goes down, every metric goes up."""


def objective_title(objective: str) -> str:
    """As a person calls it."""
    return "validation loss" if objective == "loss" else objective.replace("_", " ")


def is_better(objective: str, value: float, than: float) -> bool:
    return value < than if objective == "loss" else value > than


PromptName = Literal["none", "static", "adaptive"]
"""none: the question alone; static: one system prompt for all; adaptive: by the question's keywords."""
PROMPT_NAMES: tuple[str, ...] = get_args(PromptName)


class KeywordPrompt(Spec):
    """A system prompt for the questions that hold one of the keywords, in any case, as whole words."""

    keywords: Annotated[list[str], Field(min_length=1)]
    prompt: str


class PromptsSpec(Spec):
    static: str | None = Field(None, description="a system prompt for every question")
    adaptive: list[KeywordPrompt] = Field([], description="system prompts by keyword; all that match are joined")

    def names(self) -> list[PromptName]:
        """What there is to try."""
        given: list[tuple[PromptName, bool]] = [("static", bool(self.static)), ("adaptive", bool(self.adaptive))]
        return ["none", *(name for name, is_given in given if is_given)]


class EvaluationSpec(Spec):
    prompts: PromptsSpec = Field(PromptsSpec(), description="tried with the base and the tuned model")
    metrics: list[MetricName] | None = Field(None, description="default: all that fit the task and need no download")
    max_new_tokens: Annotated[int, Field(ge=1, description="answers are cut here")] = 32
    bertscore_model: str | None = Field(None, description="hub name or folder of the model that BERTScore embeds with")
