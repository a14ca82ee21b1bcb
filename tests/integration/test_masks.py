"""What is learned and what is masked, token by token, in every architecture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from hpsearch.errors import FieldError
from hpsearch.train.encoding import IGNORED, Encoder
from hpsearch.train.images import fitted_size
from hpsearch.train.loss import token_losses
from hpsearch.train.tiny.architectures import ARCHITECTURES
from hpsearch.trial import RowsConfig

VISION = ["tiny:gemma3", "tiny:qwen2-vl", "tiny:qwen2.5-vl"]
ROWS = RowsConfig(row_format="question-answer", image_size=(28, 28), system_prompt="Be brief.", max_tokens=256)


@pytest.fixture
def image(tmp_path: Path) -> str:
    file = tmp_path / "image.png"
    Image.effect_noise((40, 60), 80).convert("RGB").save(file)
    return str(file)


def row(question: str, answer: str, image: str | None) -> dict[str, Any]:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": messages, "images": [image] if image else [], "image_sha256s": [image] if image else []}


def spoken(encoder: Encoder, labels: torch.Tensor) -> str:
    return encoder.tokenizer.decode(labels[labels != IGNORED])


@pytest.mark.parametrize("name", VISION)
def test_only_the_answer_and_its_end_of_turn_are_learned(built: Any, image: str, name: str) -> None:
    encoder = Encoder(built[name][1], ROWS, has_images=True)
    encoded = encoder.encode(row("What is this?", "a polyp", image))
    ids = encoded.tokens["input_ids"]
    learned = (encoded.labels != IGNORED).tolist()
    first = learned.index(True)
    assert all(learned[first:]), "what is learned is one run at the end"
    assert not any(learned[:first])
    assert torch.equal(encoded.labels[first:], ids[first:])
    end_of_turn = "<end_of_turn>" if "gemma" in name else "<|im_end|>"
    assert spoken(encoder, encoded.labels) == f"a polyp{end_of_turn}"


@pytest.mark.parametrize("name", VISION)
def test_tokens_are_those_of_the_models_own_processor(built: Any, image: str, name: str) -> None:
    processor = built[name][1]
    encoder = Encoder(processor, ROWS, has_images=True)
    ours = encoder.encode(row("What is this?", "a polyp", image))
    turns = [
        {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
        {
            "role": "user",
            "content": [
                {"type": "image", "image": Image.open(image).convert("RGB").resize((28, 28), Image.Resampling.LANCZOS)},
                {"type": "text", "text": "What is this?"},
            ],
        },
        {"role": "assistant", "content": [{"type": "text", "text": "a polyp"}]},
    ]
    theirs = processor.apply_chat_template(turns, tokenize=True, return_dict=True, return_tensors="pt")
    length = len(ours.labels)
    for key in ours.tokens:
        assert torch.equal(ours.tokens[key], theirs[key][0][:length]), key
    assert encoder.tokenizer.decode(theirs["input_ids"][0][length:]).strip() == ""
    for key in ours.others:
        assert torch.equal(ours.others[key], theirs[key]), key


@pytest.mark.parametrize("name", VISION)
def test_image_tokens_are_masked_even_in_an_answer(built: Any, image: str, name: str) -> None:
    processor = built[name][1]
    encoder = Encoder(processor, ROWS, has_images=True)
    token = "<image_soft_token>" if "gemma" in name else "<|image_pad|>"
    image_id = encoder.tokenizer.convert_tokens_to_ids(token)
    assert image_id in encoder.image_token_ids
    encoded = encoder.encode(row("What is this?", f"one {token} two", image))
    ids, labels = encoded.tokens["input_ids"], encoded.labels
    assert (ids == image_id).sum() > 1
    assert not any(label in encoder.image_token_ids for label in labels.tolist())
    assert spoken(encoder, labels).startswith("one  two")


def test_gemmas_three_image_tokens_are_found_without_a_list_of_ids(built: Any) -> None:
    encoder = Encoder(built["tiny:gemma3"][1], ROWS, has_images=True)
    names = {"<start_of_image>", "<image_soft_token>", "<end_of_image>"}
    assert {encoder.tokenizer.convert_ids_to_tokens(i) for i in encoder.image_token_ids} == names


@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_padding_is_masked_and_changes_no_loss(built: Any, image: str, name: str) -> None:
    model, processor = built[name]
    encoder = Encoder(processor, ROWS, has_images=name != "tiny:qwen2")
    rows = [row("Why?", "because", image), row("What is in the middle of it?", "nothing that I can see", image)]
    batch = encoder.collate(rows)
    pad = encoder.tokenizer.pad_token_id
    padded = (batch["attention_mask"] == 0).nonzero().tolist()
    assert padded
    for position in padded:
        assert batch["labels"][tuple(position)] == IGNORED
        assert batch["input_ids"][tuple(position)] == pad
    together, _ = token_losses(model.eval(), batch, torch.float32)
    one_by_one = [token_losses(model.eval(), encoder.collate([one]), torch.float32)[0] for one in rows]
    assert together.tolist() == pytest.approx(torch.cat(one_by_one).tolist(), abs=1e-4)


@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_the_loss_is_that_of_transformers(built: Any, image: str, name: str) -> None:
    model, processor = built[name]
    encoder = Encoder(processor, ROWS, has_images=name != "tiny:qwen2")
    batch = encoder.collate([row("What is this?", "a polyp", image), row("And this?", "a snare", image)])
    with torch.no_grad():
        expected = float(model.eval()(**batch).loss)
    totals, counts = token_losses(model, batch, torch.float32)
    assert float(totals.sum() / counts.sum()) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_a_prompt_has_the_same_tokens_in_training_as_in_generation(built: Any, image: str, name: str) -> None:
    encoder = Encoder(built[name][1], ROWS, has_images=name != "tiny:qwen2")
    whole = encoder.encode(row("What is this?", "a polyp", image)).tokens["input_ids"]
    prompt = encoder.encode(row("What is this?", "a polyp", image)).prompt().tokens["input_ids"]
    assert torch.equal(whole[: len(prompt)], prompt)
    rows = [row("Why?", "x", image), row("What is this thing?", "x", image)]
    batch = encoder.prompt_batch([encoder.encode(one) for one in rows])
    assert batch["attention_mask"][0][0] == 0, "shorter prompts are padded on the left"
    assert "labels" not in batch


@pytest.mark.parametrize("name", VISION)
@pytest.mark.parametrize("size", [(28, 28), 56, None])
def test_tokens_are_counted_without_looking_at_pixels(built: Any, image: str, name: str, size: Any) -> None:
    encoder = Encoder(built[name][1], ROWS.model_copy(update={"image_size": size}), has_images=True)
    one = row("What is this?", "a polyp", image)
    assert encoder.num_tokens(one) == len(encoder.encode(one))


def test_every_answer_of_a_chat_is_learned_and_nothing_else(built: Any) -> None:
    encoder = Encoder(built["tiny:qwen2"][1], ROWS.model_copy(update={"row_format": "messages"}), has_images=False)
    turns = ["Hello", "Good day", "How are you?", "Well"]
    messages = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(turns)]
    encoded = encoder.encode({"messages": messages})
    assert spoken(encoder, encoded.labels) == "Good day<|im_end|>Well<|im_end|>"
    prompt = encoder.tokenizer.decode(encoder.encode({"messages": messages}).prompt().tokens["input_ids"])
    assert prompt.endswith("How are you?<|im_end|>\n<|im_start|>assistant\n")


def test_raw_prompts_have_no_template(built: Any) -> None:
    rows = ROWS.model_copy(update={"row_format": "prompt-completion", "system_prompt": None})
    encoder = Encoder(built["tiny:qwen2"][1], rows, has_images=False)
    encoded = encoder.encode(row("Q: why?\nA:", " because", None))
    assert encoder.tokenizer.decode(encoded.tokens["input_ids"]) == "Q: why?\nA: because<|im_end|>"
    assert spoken(encoder, encoded.labels) == " because<|im_end|>"


def test_a_base_without_a_chat_template_is_reported(built: Any) -> None:
    import copy

    tokenizer = copy.deepcopy(built["tiny:qwen2"][1])
    tokenizer.chat_template = None
    with pytest.raises(FieldError, match="no chat template"):
        Encoder(tokenizer, ROWS, has_images=False)


@pytest.mark.parametrize(
    ("found", "size", "wanted"),
    [
        ((640, 480), 448, (448, 336)),
        ((480, 640), 448, (336, 448)),
        ((100, 50), 448, (100, 50)),
        ((8, 8), (28, 28), (28, 28)),
        ((640, 480), None, (640, 480)),
    ],
)
def test_images_are_fitted(found: tuple[int, int], size: Any, wanted: tuple[int, int]) -> None:
    assert fitted_size(found, size) == wanted
