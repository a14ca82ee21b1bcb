"""A conversation as the model's chat template renders it: what the model is given, and what it shall learn to say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hpsearch.errors import FieldError
from hpsearch.spec.rows import FORMATS, PLACEHOLDER
from hpsearch.trial import RowsConfig

Message = dict[str, str]
Turn = dict[str, Any]
_IMAGE = {"type": "image"}


@dataclass(frozen=True)
class Segment:
    """`num_images`: how many of the text's placeholders, in the template's notation, are images."""

    text: str
    is_learned: bool
    num_images: int = 0


class Template:
    """`processor` is the model's tokenizer, or its processor where rows may have images.

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

    def segments(
        self, messages: list[Message], examples: list[Message] | None = None, num_images: int = 0
    ) -> list[Segment]:
        """The rendered conversation in order, with `examples` before its first question; the last segment is learned.

        Nothing of the examples is learned. Images are at the placeholders in user turns; without placeholders, before
        the first user turn.
        """
        if FORMATS[self._rows.row_format].is_raw:
            *before, prompt, completion = (message["content"] for message in messages)
            end = "" if completion.endswith(self._eos_token) else self._eos_token
            given = "\n".join([*before, "".join(map(_as_text, examples or [])) + prompt])
            return [Segment(given, False), Segment(completion + end, True)]
        if self._rows.system_prompt:
            messages = _with_system_prompt(messages, self._rows.system_prompt)
        first = 1 if messages[0]["role"] == "system" else 0
        turns = self._turns([*messages[:first], *(examples or []), *messages[first:]], num_images)
        num_shown = first + len(examples or [])
        segments: list[Segment] = []
        rendered, seen = "", 0
        for position, turn in enumerate(turns):
            seen += turn["content"].count(_IMAGE) if self._has_images else 0
            if turn["role"] != "assistant":
                continue
            given = self._render(turns[:position], ask=True)
            whole = self._render(turns[: position + 1], ask=False)
            if not (given.startswith(rendered) and whole.startswith(given)):
                raise FieldError("model.base", "its chat template rewrites earlier turns; hpsearch can't mask them")
            learned = whole[len(given) :].rstrip()  # nothing is ever generated after the end of the turn
            segments += [Segment(given[len(rendered) :], False, seen), Segment(learned, position >= num_shown)]
            rendered, seen = given + learned, 0
        return segments

    def _turns(self, messages: list[Message], num_images: int) -> list[Turn]:
        """In the form of chat templates: a text, or parts of text and images where there may be images."""
        if not self._has_images:
            return list(messages)
        turns: list[Turn] = []
        for message in messages:
            role, text = message["role"], message["content"]
            turns.append({"role": role, "content": _parts(text) if num_images and role == "user" else [_text(text)]})
        asked = [turn for turn in turns if turn["role"] == "user"]
        if num_images and not any(_IMAGE in turn["content"] for turn in asked):
            asked[0]["content"][:0] = [_IMAGE] * num_images
        return turns

    def _render(self, turns: list[Turn], *, ask: bool) -> str:
        return str(self._processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=ask))

    def blank_prompt(self, *, with_image: bool) -> str:
        return self._render(self._turns([{"role": "user", "content": "?"}], int(with_image)), ask=True)


def _as_text(turn: Message) -> str:
    """A turn of an example before a raw prompt: a blank line ends the example."""
    return turn["content"].rstrip() + "\n\n" if turn["role"] == "assistant" else turn["content"]


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def _parts(text: str) -> list[dict[str, str]]:
    """A user's text with an image at each placeholder; white space is kept."""
    first, *others = text.split(PLACEHOLDER)
    pieces = [_text(first), *(part for other in others for part in (_IMAGE, _text(other)))]
    return [piece for piece in pieces if piece != _text("")]


def _with_system_prompt(messages: list[Message], prompt: str) -> list[Message]:
    """Chat templates take one system turn: a second one is joined to the first."""
    if messages[0]["role"] == "system":
        return [{"role": "system", "content": f"{prompt}\n{messages[0]['content']}"}, *messages[1:]]
    return [{"role": "system", "content": prompt}, *messages]
