"""How a model is evaluated: which metrics, and which prompts it is tried with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import Field

from hpsearch.spec.base import Spec
from hpsearch.spec.metrics import Metric
from hpsearch.spec.own_metrics import own_metrics

PromptName = Literal["none", "static", "adaptive"]
"""none: the question alone; static: one system prompt for all; adaptive: by the question's keywords."""
PROMPT_NAMES: tuple[str, ...] = get_args(PromptName)


class KeywordPrompt(Spec):
    """A system prompt for the questions that hold one of the keywords, in any case, as whole words."""

    keywords: Annotated[list[str], Field(min_length=1, description="Words of which the question must contain one.")]
    prompt: str = Field(description="The system prompt for such questions.")


class PromptsSpec(Spec):
    """System prompts to try with base and tuned model, besides none."""

    static: str | None = Field(None, description="A system prompt for every question.")
    adaptive: list[KeywordPrompt] = Field(
        [], description="System prompts by the question's keywords; all that match are joined."
    )

    def names(self) -> list[PromptName]:
        """The prompts to try."""
        given: list[tuple[PromptName, bool]] = [("static", bool(self.static)), ("adaptive", bool(self.adaptive))]
        return ["none", *(name for name, is_given in given if is_given)]


class EvaluationSpec(Spec):
    prompts: PromptsSpec = Field(PromptsSpec(), description="System prompts to try with the base and the tuned model.")
    metrics: list[str] | None = Field(
        None, description="Metrics to compute; by default all that fit the task and need no further model."
    )
    metrics_file: str | None = Field(
        None, description="Python file with metrics of your own, relative to the study file."
    )
    metrics_text: str | None = Field(
        None, description="The text of metrics_file; hpsearch writes it into study files that it makes."
    )
    max_new_tokens: Annotated[int, Field(ge=1, description="Largest number of tokens of an answer.")] = 32
    bertscore_model: str | None = Field(
        None, description="Hub name or folder of the model that BERTScore embeds with; the metric bertscore needs it."
    )

    @property
    def own_metrics(self) -> dict[str, Metric]:
        """By name, from the metrics file as it was when the study file was read."""
        return {} if self.metrics_text is None else own_metrics(self.metrics_text).metrics

    def found_from(self, folder: Path) -> EvaluationSpec:
        """With an absolute path, for a study file in `folder`."""
        if self.metrics_file is None:
            return self
        return self.model_copy(update={"metrics_file": str((folder / self.metrics_file).expanduser().resolve())})
