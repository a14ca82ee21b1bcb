"""What other tools read of a merged model: the base's own files, and the chat template in Ollama's words."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from hpsearch.spec.model import ModelSpec
from hpsearch.train.bases import find_base
from hpsearch.train.chat import chat_format
from hpsearch.train.checkpoint import save_like_base
from hpsearch.train.encoding import Encoder
from hpsearch.trial import RowsConfig
from tests.integration.conftest import ROWS

QWEN2_5 = (
    "{%- if messages[0].role != 'system' -%}{{- '<|im_start|>system\\nYou are Qwen.<|im_end|>\\n' -}}{%- endif -%}"
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)
NO_SYSTEM = "{%- if messages[0].role == 'system' -%}{{ raise_exception('no system role') }}{%- endif -%}" + QWEN2_5
TURN = "<|im_start|>user\n{{ .Prompt }}<|im_end|>\n<|im_start|>assistant\n"
END = "{{ .Response }}<|im_end|>\n"


@pytest.fixture(scope="module")
def base() -> Path:
    return Path(find_base(ModelSpec(base="tiny:qwen2"), lambda *_: None))


def encoder(base: Path, template: str | None, rows: RowsConfig = ROWS) -> Encoder:
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template = template or tokenizer.chat_template
    return Encoder(tokenizer, rows, has_images=False)


def chat_of(base: Path, template: str | None, rows: RowsConfig = ROWS) -> Any:
    model = SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=0))
    return chat_format(encoder(base, template, rows), model)


def test_a_template_that_brings_its_own_system_prompt_says_which(base: Path) -> None:
    chat = chat_of(base, QWEN2_5)
    system = "<|im_start|>system\n{{ .System }}<|im_end|>\n"
    assert chat.template == f"{{{{ if .System }}}}{system}{TURN}{{{{ else }}}}{TURN}{{{{ end }}}}{END}"
    assert chat.default_system == "You are Qwen."
    assert chat.stop == ["<|endoftext|>", "<|im_end|>"]


def test_a_template_without_a_system_role_has_none(base: Path) -> None:
    chat = chat_of(base, NO_SYSTEM)
    assert chat.template == TURN + END
    assert chat.default_system is None


def test_a_system_prompt_within_the_first_turn_is_as_gemmas(base: Path) -> None:
    gemma = (
        "{%- set s = messages[0].content + '\\n\\n' if messages[0].role == 'system' else '' -%}"
        "{%- for m in messages if m.role != 'system' -%}"
        "{{- '<' + m.role + '>' + (s if loop.first else '') + m.content + '</>' -}}{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{- '<assistant>' -}}{%- endif -%}"
    )
    assert chat_of(base, gemma).template == (
        "{{ if .System }}<user>{{ .System }}\n\n{{ .Prompt }}</><assistant>"
        "{{ else }}<user>{{ .Prompt }}</><assistant>{{ end }}{{ .Response }}</>"
    )


def test_raw_prompts_have_no_template(base: Path) -> None:
    rows = ROWS.model_copy(update={"row_format": "prompt-completion"})
    assert chat_of(base, None, rows).template == "{{ .Prompt }}{{ .Response }}"


def test_the_bases_own_files_are_kept_as_they_are(base: Path, tmp_path: Path) -> None:
    """Hub models have a temperature without sampling, and files that transformers 5 does not write."""
    theirs, saved = tmp_path / "theirs", tmp_path / "saved"
    shutil.copytree(base, theirs)
    settings = json.loads((theirs / "generation_config.json").read_text()) | {"do_sample": False, "temperature": 0.7}
    (theirs / "generation_config.json").write_text(json.dumps(settings))
    (theirs / "LICENSE").write_text("theirs")
    (theirs / "tokenizer.model").write_text("a vocabulary that only llama.cpp reads")
    (theirs / "model.safetensors.index.json").write_text("of shards that are no more")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(theirs), AutoTokenizer.from_pretrained(theirs)
    save_like_base(model, tokenizer, ModelSpec(base=str(theirs)), saved, lambda *_: None)
    for name in ("generation_config.json", "LICENSE", "tokenizer.model", "tokenizer.json"):
        assert (saved / name).read_bytes() == (theirs / name).read_bytes()
    assert not (saved / "model.safetensors.index.json").exists()
    assert AutoModelForCausalLM.from_pretrained(saved).generation_config.temperature == 0.7


def test_further_special_tokens_have_the_name_that_transformers_4_knows(base: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(base)
    theirs = json.loads((base / "tokenizer_config.json").read_text())
    assert isinstance(theirs["extra_special_tokens"], list), "transformers 5 writes a list, 4 takes a dict"
    save_like_base(
        AutoModelForCausalLM.from_pretrained(base), tokenizer, ModelSpec(base=str(base)), tmp_path, lambda *_: None
    )
    saved = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert saved["additional_special_tokens"] == theirs["extra_special_tokens"]
    assert "extra_special_tokens" not in saved
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again.all_special_tokens == tokenizer.all_special_tokens
    assert again("<|im_start|>user").input_ids == tokenizer("<|im_start|>user").input_ids
