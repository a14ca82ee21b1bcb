"""How a model is judged: which metrics, and which prompts it is tried with."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field

from hpsearch.spec.base import Spec

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
    metrics: list[str] | None = Field(None, description="default: all that fit the task and need no download")
    max_new_tokens: Annotated[int, Field(ge=1, description="answers are cut here")] = 32
    bertscore_model: str | None = Field(None, description="hub name or folder of the model that BERTScore embeds with")
