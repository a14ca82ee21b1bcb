"""The chat template for Ollama, which can't run Jinja: found by rendering it with placeholders for the texts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedModel

from hpsearch.jobs import ChatFormat
from hpsearch.spec.rows import FORMATS
from hpsearch.train.encoding import Encoder
from hpsearch.train.ending import end_tokens

_SYSTEM, _PROMPT, _RESPONSE = "{{ .System }}", "{{ .Prompt }}", "{{ .Response }}"
Turn = tuple[str, str]
"""(role, text)"""


def chat_format(encoder: Encoder, model: PreTrainedModel) -> ChatFormat:
    """Ollama renders its template once for each pair of turns, and gives the system prompt only to the first."""
    stop = _stop_tokens(encoder, model)
    if FORMATS[encoder.rows.row_format].is_raw:
        return ChatFormat(template=_PROMPT + _RESPONSE, stop=stop)

    def render(*turns: Turn, ask: bool) -> str:
        return _rendered(encoder, turns, ask)

    asked = render(("user", _PROMPT), ask=True)
    answered = render(("user", _PROMPT), ("assistant", _RESPONSE), ask=False)
    followed = render(("user", _PROMPT), ("assistant", _RESPONSE), ("user", _PROMPT), ask=True)
    later = followed.removeprefix(answered) if followed.startswith(answered) else asked
    end = answered.partition(_RESPONSE)[2]
    with_system = _with_system(render)
    if with_system is None:
        return ChatFormat(template=f"{later}{_RESPONSE}{end}", stop=stop)
    return ChatFormat(
        template=f"{{{{ if .System }}}}{with_system}{{{{ else }}}}{later}{{{{ end }}}}{_RESPONSE}{end}",
        default_system=_default_system(asked, later, with_system),
        stop=stop,
    )


def _rendered(encoder: Encoder, turns: tuple[Turn, ...], ask: bool) -> str:
    """Without the BOS token: llama.cpp adds it itself."""
    messages: list[dict[str, Any]] = [{"role": role, "content": text} for role, text in turns]
    if encoder.has_images:
        messages = [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in turns]
    text = encoder.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=ask)
    return str(text).removeprefix(encoder.tokenizer.bos_token or "")


def _with_system(render: Callable[..., str]) -> str | None:
    """The first turn with a system prompt; None where the template supports none."""
    try:
        text = render(("system", _SYSTEM), ("user", _PROMPT), ask=True)
    except TemplateError:
        return None
    return text if _SYSTEM in text else None


def _default_system(asked: str, later: str, with_system: str) -> str | None:
    """The template's default system prompt, as Qwen2.5's has."""
    before, _, after = with_system.partition(_SYSTEM)
    if asked == later or not (asked.startswith(before) and asked.endswith(after)):
        return None
    return asked[len(before) : len(asked) - len(after)] or None


def _stop_tokens(encoder: Encoder, model: PreTrainedModel) -> list[str]:
    ids = {*end_tokens(encoder, model.generation_config), encoder.tokenizer.eos_token_id} - {None}
    return sorted(encoder.tokenizer.convert_ids_to_tokens(sorted(ids)))
