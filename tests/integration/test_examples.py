"""Few-shot examples as the model sees them: before the question, and nothing of them is learned."""

from __future__ import annotations

from typing import Any

import pytest

from hpsearch.spec.rows import RowFormat
from hpsearch.train.encoding import IGNORED, Encoder
from hpsearch.train.inspection import _before_itself
from hpsearch.train.kept_rows import KeptRows
from hpsearch.train.tiny.tokenizers import gemma_tokenizer, qwen_tokenizer
from tests.integration.conftest import ROWS

TOKENIZERS = {"gemma": gemma_tokenizer, "qwen": qwen_tokenizer}


def turns(*said: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(said)]


def encoder_for(name: str, row_format: RowFormat, system: str | None = None) -> Encoder:
    rows = ROWS.model_copy(update={"row_format": row_format, "system_prompt": system})
    return Encoder(TOKENIZERS[name](), rows, has_images=False)


def learned(encoder: Encoder, row: dict[str, Any]) -> str:
    labels = encoder.encode(row).labels
    return str(encoder.tokenizer.decode(labels[labels != IGNORED]))


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("row_format", ["question-answer", "messages"])
def test_examples_are_turns_of_which_nothing_is_learned(name: str, row_format: RowFormat) -> None:
    encoder = encoder_for(name, row_format, "Be brief.")
    own = turns("Three?", "No.") if row_format == "question-answer" else turns("Three?", "No.", "Why?", "So.")
    row = {"messages": own, "examples": turns("One?", "Yes.", "Two?", "Never.")}
    assert learned(encoder, row) == learned(encoder, {"messages": own}), "every answer of its own, and no other"
    encoded = encoder.encode(row)
    text = encoder.tokenizer.decode(encoded.tokens["input_ids"])
    places = [text.index(words) for words in ("Be brief.", "One?", "Yes.", "Two?", "Never.", "Three?", "No.")]
    assert places == sorted(places), "the system prompt first, then the examples, then the row"
    given = encoder.tokenizer.decode(encoded.prompt().tokens["input_ids"])
    assert "Never." in given, "generation sees them too"
    assert not given.rstrip().endswith(own[-1]["content"])


@pytest.mark.parametrize("name", TOKENIZERS)
def test_examples_of_raw_prompts_are_text(name: str) -> None:
    encoder = encoder_for(name, "prompt-completion")
    row = {"messages": turns("Q: three?\nA:", " no"), "examples": turns("Q: one?\nA:", " yes\n", "Q: two?\nA:", " no")}
    encoded = encoder.encode(row)
    end, bos = encoder.tokenizer.eos_token, encoder.tokenizer.decode(encoder._beginning)
    shown = "Q: one?\nA: yes\n\nQ: two?\nA: no\n\n"
    assert encoder.tokenizer.decode(encoded.tokens["input_ids"]) == f"{bos}{shown}Q: three?\nA: no{end}"
    assert learned(encoder, row) == f" no{end}"


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("row_format", ["question-answer", "messages", "prompt-completion"])
def test_what_an_example_adds_is_known_without_the_row_it_stands_before(name: str, row_format: RowFormat) -> None:
    """Lengths are counted before anyone knows which rows are drawn: `data/examples.fitting` adds them up."""
    encoder = encoder_for(name, row_format, None if row_format == "prompt-completion" else "Be brief.")
    rows: list[Any] = [{"messages": turns(f"What is {i * i}?", f" It is {'so ' * i}.")} for i in range(4)]
    alone = [encoder.num_tokens(row) for row in rows]
    adds = [encoder.num_tokens(_before_itself(row)) - alone[i] for i, row in enumerate(rows)]
    whole = rows[0] | {"examples": [turn for row in rows[1:] for turn in row["messages"]]}
    assert encoder.num_tokens(whole) == len(encoder.encode(whole)) == alone[0] + sum(adds[1:])


def test_rows_with_other_examples_are_not_taken_for_each_other() -> None:
    encoder = encoder_for("qwen", "question-answer")
    row = {"messages": turns("Three?", "No.")}
    assert len({encoder._key(row, []), encoder._key(row | {"examples": turns("One?", "Yes.")}, [])}) == 2


def test_an_example_is_not_taken_for_an_earlier_turn() -> None:
    """Of those the answers are learned: a row that was kept is another one, though its words are the same."""
    kept = Encoder(
        qwen_tokenizer(), ROWS.model_copy(update={"row_format": "messages"}), has_images=False, kept=KeptRows()
    )
    shown = {"messages": turns("Two?", "Never."), "examples": turns("One?", "Yes.")}
    own = {"messages": turns("One?", "Yes.", "Two?", "Never.")}
    assert "Yes" not in learned(kept, shown)
    assert "Yes" in learned(kept, own)
