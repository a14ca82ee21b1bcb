"""Answers end where they were taught to end, whatever the base takes for the end of a text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from hpsearch.data.prepared import write_rows
from hpsearch.jobs import ExportConfig
from hpsearch.spec.model import LoraSpec, ModelSpec
from hpsearch.train.adapters import attach, save_adapter
from hpsearch.train.bases import Bases
from hpsearch.train.encoding import Encoder
from hpsearch.train.ending import end_tokens, write_end
from hpsearch.train.export import export
from hpsearch.train.tasks import TASKS
from hpsearch.train.tasks.generation import Generation
from hpsearch.trial import AnswersConfig
from tests.integration.conftest import ROWS, ends_as_qwen2_5
from tests.integration.inside import Answering
from tests.integration.preference_fixtures import polite_pairs

PLAIN = (
    "{%- for m in messages -%}{{- m.role + ': ' + m.content + '\\n' -}}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- 'assistant: ' -}}{%- endif -%}"
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Answers with `<|im_end|>` behind them, and knows `<|endoftext|>` alone as an end, like Qwen2.5-0.5B."""
    return ends_as_qwen2_5(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def model(base: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(base).eval()


def encoder(base: Path, row_format: Any = "question-answer") -> Encoder:
    return Encoder(
        AutoTokenizer.from_pretrained(base), ROWS.model_copy(update={"row_format": row_format}), has_images=False
    )


def asked(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": ""}]}


def test_generation_stops_at_the_end_that_was_taught(base: Path, model: Any) -> None:
    method = Generation(encoder(base), AnswersConfig(max_new_tokens=16), None)
    rows = [method.encode(asked("Repeat: number")), method.encode(asked("Repeat: data of the number"))]
    said = method.answers(model, rows, torch.float32, is_tuned=True)
    assert not any(answer.is_cut for answer in said)
    alone = [method.answers(model, [row], torch.float32, is_tuned=True)[0] for row in rows]
    assert alone == said, "padding behind an answer is no part of it"
    short = Generation(encoder(base), AnswersConfig(max_new_tokens=1), None)
    assert all(answer.is_cut for answer in short.answers(model, rows, torch.float32, is_tuned=True))


def test_the_end_is_the_last_token_that_is_learned(base: Path, model: Any) -> None:
    ids = AutoTokenizer.from_pretrained(base).convert_tokens_to_ids
    end_of_text, end_of_turn = ids("<|endoftext|>"), ids("<|im_end|>")
    assert end_tokens(encoder(base), model.generation_config) == [end_of_text, end_of_turn]
    assert end_tokens(encoder(base, "prompt-completion"), model.generation_config) == [end_of_text]
    unmarked = encoder(base)
    unmarked.processor.chat_template = PLAIN
    assert unmarked.end_token is None, "an exclamation mark ends no answer"
    assert end_tokens(unmarked, GenerationConfig()) == []


def test_exports_tell_other_tools_of_an_end_that_the_base_did_not_know(base: Path, model: Any, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.save_pretrained(tmp_path)
    write_end(tmp_path, encoder(base), model.generation_config)
    assert AutoTokenizer.from_pretrained(tmp_path).eos_token == "<|im_end|>"
    assert GenerationConfig.from_pretrained(tmp_path).eos_token_id == [
        tokenizer.convert_tokens_to_ids(token) for token in ("<|endoftext|>", "<|im_end|>")
    ]
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    write_end(tmp_path, encoder(base), GenerationConfig.from_pretrained(tmp_path))
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before, "what is known stays as it is"
    assert json.loads((base / "tokenizer_config.json").read_text())["eos_token"] == "<|endoftext|>"


def test_a_merged_model_that_speaks_ends_there_too(base: Path, tmp_path: Path) -> None:
    """Also one that learned by another loss than its own: preferences."""
    bases = Bases(lambda *_: None)
    job = ExportConfig(
        task="text-preference",
        model=ModelSpec(base=str(base)),
        adapter=tmp_path / "adapter",
        rows=ROWS.model_copy(update={"row_format": "preference"}),
        dtype="bfloat16",
        check_rows=tmp_path / "rows",
        output=tmp_path / "merged",
    )
    save_adapter(attach(bases.get(TASKS[job.task], job.model).fresh_model(), LoraSpec()), job.adapter)
    write_rows(polite_pairs(1), job.check_rows)
    result = export(job, bases, Answering())
    assert result.quantized_agreement is not None
    assert AutoTokenizer.from_pretrained(job.output).eos_token == "<|im_end|>"
    assert len(GenerationConfig.from_pretrained(job.output).eos_token_id) == 2
