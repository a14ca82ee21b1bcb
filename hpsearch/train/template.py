"""A conversation as the model's chat template renders it: what the model is given, and what it shall learn to say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hpsearch.errors import FieldError
from hpsearch.spec.rows import FORMATS
from hpsearch.trial import RowsConfig

Turns = list[dict[str, str]]


@dataclass(frozen=True)
class Segment:
    text: str
    is_learned: bool


class Template:
    """`processor` is the model's tokenizer, or its processor where rows have an image.

    Raises:
        FieldError: chat rows, and a base that has no chat template.
    """

    def __init__(self, processor: Any, rows: RowsConfig, *, has_images: bool) -> None:
        self._processor = processor
        self._eos_token = getattr(processor, "tokenizer", processor).eos_token
        self._rows = rows
        self._has_images = has_images
        if not FORMATS[rows.row_format].is_raw and not getattr(processor, "chat_template", None):
            raise FieldError(
                "model.base",
                "has no chat template: take an instruction-tuned base, or give the data as prompt and completion "
                "columns",
            )

    def segments(self, messages: Turns, examples: Turns | None = None) -> list[Segment]:
        """The rendered conversation in order, `examples` shown before its first question; the last segment is learned.

        Of examples nothing is learned.
        """
        if FORMATS[self._rows.row_format].is_raw:
            *before, prompt, completion = (message["content"] for message in messages)
            end = "" if completion.endswith(self._eos_token) else self._eos_token
            given = "\n".join([*before, "".join(map(_as_text, examples or [])) + prompt])
            return [Segment(given, False), Segment(completion + end, True)]
        if self._rows.system_prompt:
            messages = _with_system_prompt(messages, self._rows.system_prompt)
        first = 1 if messages[0]["role"] == "system" else 0
        messages = [*messages[:first], *(examples or []), *messages[first:]]
        num_shown = first + len(examples or [])
        segments = []
        rendered = ""
        for position, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            given = self._render(messages[:position], ask=True, with_image=self._has_images)
            whole = self._render(messages[: position + 1], ask=False, with_image=self._has_images)
            if not (given.startswith(rendered) and whole.startswith(given)):
                raise FieldError("model.base", "its chat template rewrites earlier turns; hpsearch can't mask them")
            learned = whole[len(given) :].rstrip()  # nothing is ever generated after the end of the turn
            segments += [Segment(given[len(rendered) :], False), Segment(learned, position >= num_shown)]
            rendered = given + learned
        return segments

    def _render(self, messages: list[dict[str, str]], *, ask: bool, with_image: bool) -> str:
        turns: list[dict[str, Any]] = list(messages)
        if self._has_images:
            turns = [{"role": m["role"], "content": [{"type": "text", "text": m["content"]}]} for m in messages]
        if with_image:
            first = next(turn for turn in turns if turn["role"] == "user")
            first["content"].insert(0, {"type": "image"})
        text = self._processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=ask)
        return str(text)

    def blank_prompt(self, *, with_image: bool) -> str:
        return self._render([{"role": "user", "content": "?"}], ask=True, with_image=with_image)


def _as_text(turn: dict[str, str]) -> str:
    """A turn of an example before a raw prompt: a blank line ends the example."""
    return turn["content"].rstrip() + "\n\n" if turn["role"] == "assistant" else turn["content"]


def _with_system_prompt(messages: list[dict[str, str]], prompt: str) -> list[dict[str, str]]:
    """Chat templates take one system turn: a second one joins the first."""
    if messages[0]["role"] == "system":
        return [{"role": "system", "content": f"{prompt}\n{messages[0]['content']}"}, *messages[1:]]
    return [{"role": "system", "content": prompt}, *messages]
