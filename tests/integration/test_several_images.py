"""Rows with several images, one and none: as the models' own processors take them, alone and together in a batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from PIL import Image

from hpsearch.data.images import CheckedImage
from hpsearch.data.prepared import write_rows
from hpsearch.data.rows import Row
from hpsearch.errors import FieldError
from hpsearch.folders import JobFolder
from hpsearch.jobs import AnsweredRow, EvaluationConfig, Variant
from hpsearch.spec.evaluation import PromptsSpec
from hpsearch.spec.model import LoraSpec
from hpsearch.spec.training import BudgetSpec
from hpsearch.train.adapters import attach
from hpsearch.train.encoding import IGNORED, Encoder
from hpsearch.train.evaluation import evaluate, prompted
from hpsearch.train.features import Features, make_encoder
from hpsearch.train.fitting import longest_rows
from hpsearch.train.loss import token_losses
from hpsearch.train.tasks import TASKS
from hpsearch.trial import GIB, AnswersConfig, CacheConfig, RowsConfig
from tests.integration.conftest import changed, text_config
from tests.integration.inside import Answering, Inside

VISION = ["tiny:gemma3", "tiny:qwen2-vl", "tiny:qwen2.5-vl"]
ROWS = RowsConfig(row_format="messages", image_size=None, system_prompt="Be brief.", max_tokens=512)
PICTURE = {"type": "image"}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Of different sizes and contents."""
    folder = tmp_path_factory.mktemp("pictures")
    files = [folder / f"{number}.png" for number in range(4)]
    for number, file in enumerate(files):
        pixels = torch.randint(256, (28 + 14 * number, 56, 3), dtype=torch.uint8, generator=torch.manual_seed(number))
        Image.fromarray(pixels.numpy()).save(file)
    return files


@pytest.fixture(scope="module")
def rows(pictures: list[Path]) -> list[dict[str, Any]]:
    """Two images, none, one, two in different turns of which one was seen before, two without a place of their own."""
    a, b, c, d = map(str, pictures)
    return [
        row([a, b], "<image>\nis before <image>?", "yes"),
        row([], "What is red?", "a colour that one sees"),
        row([c], "What is this?", "a thing"),
        row([d, a], "Hello.", "Good day", "And <image>?", "noise", "What is it on <image><", "red"),
        row([b, c], "Compare them.", "alike"),
    ]


def row(images: list[str], *turns: str) -> dict[str, Any]:
    messages = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(turns)]
    return {"id": turns[0], "messages": messages, "images": images, "image_sha256s": images}


def parts(row: dict[str, Any]) -> list[dict[str, Any]]:
    """The row as one would write it for the model's own processor."""
    turns = [{"role": "system", "content": [{"type": "text", "text": "Be brief."}]}]
    images = [{"type": "image", "image": Image.open(file).convert("RGB")} for file in row["images"]]
    are_placed = any("<image>" in message["content"] for message in row["messages"])
    for message in row["messages"]:
        content: list[dict[str, Any]] = []
        for number, text in enumerate(message["content"].split("<image>")):
            content += [images.pop(0)] if number else []
            content += [{"type": "text", "text": text}] if text else []
        if not are_placed:
            content, images = images + content, []
        turns.append({"role": message["role"], "content": content})
    return turns


@pytest.mark.parametrize("name", VISION)
def test_tokens_and_pixels_are_those_of_the_models_own_processor(
    built: Any, rows: list[dict[str, Any]], name: str
) -> None:
    processor = built[name][1]
    encoder = Encoder(processor, ROWS, has_images=True)
    for one in rows:
        ours = encoder.encode(one)
        types = {"return_mm_token_type_ids": True}
        theirs = processor.apply_chat_template(
            parts(one), tokenize=True, return_dict=True, return_tensors="pt", processor_kwargs=types
        )
        length = len(ours)
        for key in ours.tokens.keys() & theirs.keys():
            assert torch.equal(ours.tokens[key], theirs[key][0][:length]), key
        assert encoder.tokenizer.decode(theirs["input_ids"][0][length:]).strip() == ""
        assert set(ours.others) == set(theirs) - set(ours.tokens)
        for key in ours.others:
            assert torch.equal(ours.others[key], theirs[key]), key
        assert encoder.num_tokens(one) == length


@pytest.mark.parametrize("name", VISION)
def test_answers_alone_are_learned_and_the_prompt_has_every_image(
    built: Any, rows: list[dict[str, Any]], name: str
) -> None:
    encoder = Encoder(built[name][1], ROWS, has_images=True)
    encoded = encoder.encode(rows[3])
    end = "<end_of_turn>" if "gemma" in name else "<|im_end|>"
    assert encoder.tokenizer.decode(encoded.labels[encoded.labels != IGNORED]) == f"Good day{end}noise{end}red{end}"
    ids, prompt = encoded.tokens["input_ids"].tolist(), encoded.prompt().tokens["input_ids"].tolist()
    num_image_tokens = sum(token in encoder.image_token_ids for token in ids)
    assert num_image_tokens > 8
    assert sum(token in encoder.image_token_ids for token in prompt) == num_image_tokens


@pytest.mark.parametrize("by", ["features", "pixels"])
@pytest.mark.parametrize("name", VISION)
def test_in_a_batch_each_row_sees_its_own_images(
    inside: Inside, rows: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, by: str
) -> None:
    """Losses and answers of all rows together, in either order, are those of each row alone."""
    if by == "pixels":
        monkeypatch.setattr(Features, "fit", staticmethod(lambda _: False))
    model, encoder = made(inside, name, tmp_path)
    alone = torch.cat([losses(model, encoder, [one]) for one in rows])
    torch.testing.assert_close(losses(model, encoder, rows), alone, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(losses(model, encoder, rows[::-1]), alone.flip(0), rtol=1e-4, atol=1e-4)
    swapped = [one | {"images": one["images"][::-1], "image_sha256s": one["images"][::-1]} for one in rows]
    differs = (losses(model, encoder, swapped) - alone).abs() > 1e-3
    assert differs.tolist() == [len(one["images"]) == 2 for one in rows], "which image stands where matters"
    method = TASKS["vlm-sft"].method(encoder, AnswersConfig(max_new_tokens=4), None)
    said = [method.answers(model, [method.encode(one)], torch.float32, is_tuned=False)[0] for one in rows]
    assert method.answers(model, [method.encode(one) for one in rows], torch.float32, is_tuned=False) == said


def made(inside: Inside, name: str, folder: Path, lora: LoraSpec | None = None) -> tuple[Any, Encoder]:
    config = text_config((Path(), Path()), task="vlm-sft", model__base=name)
    base = inside.bases.get(TASKS["vlm-sft"], config.model)
    model = base.fresh_model().eval()
    model = attach(model, lora).train() if lora else model
    kept = CacheConfig(folder=folder / "features", limit_bytes=GIB)
    return model, make_encoder(base, model, ROWS, kept, has_images=True)


def losses(model: Any, encoder: Encoder, rows: list[dict[str, Any]]) -> torch.Tensor:
    return token_losses(model, encoder.batch([encoder.encode(one) for one in rows]), torch.float32)[0]


def test_rows_share_what_the_tower_made_of_an_image(
    inside: Inside, rows: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    ask = Features._run_tower
    monkeypatch.setattr(Features, "_run_tower", lambda self, given: (asked.append(1), ask(self, given))[1])
    model, encoder = made(inside, "tiny:qwen2.5-vl", tmp_path)
    first = losses(model, encoder, rows)
    assert len(asked) == 4, "each image once, whatever rows it is in"
    monkeypatch.setattr("hpsearch.train.image_texts.load_image", lambda *_: pytest.fail("an image was read again"))
    encoded = [encoder.encode(one) for one in rows]
    assert [len(one.pictures) for one in encoded] == [2, 0, 1, 2, 2]
    torch.testing.assert_close(token_losses(model, encoder.batch(encoded), torch.float32)[0], first, rtol=0, atol=0)


@pytest.mark.parametrize("vision", [False, True])
@pytest.mark.parametrize("name", ["tiny:gemma3", "tiny:qwen2.5-vl"])
def test_text_alone_asks_no_tower(
    inside: Inside, rows: list[dict[str, Any]], tmp_path: Path, name: str, vision: bool
) -> None:
    """An adapter in the tower learns nothing from it, and is no obstacle."""
    model, encoder = made(inside, name, tmp_path, LoraSpec(r=4, vision=vision))
    tower = model.get_base_model().base_model.get_submodule("vision_tower" if "gemma" in name else "visual")
    hook = tower.register_forward_hook(lambda *_: pytest.fail("the tower was asked"))
    batch = encoder.batch([encoder.encode(rows[1])] * 2)
    assert not {"pixel_values", "image_grid_thw", "mm_encoder_outputs"} & batch.keys()
    model(**batch).loss.backward()
    hook.remove()
    learns = [weight.grad is not None for key, weight in model.named_parameters() if "lora" in key and "vis" in key]
    assert learns == [False] * len(learns)
    assert bool(learns) is vision


def test_a_trial_and_its_evaluation_take_rows_with_and_without_images(
    inside: Inside, pictures: list[Path], tmp_path: Path
) -> None:
    """With an adapter in the tower, one row per step: some steps have no image at all."""
    images = [CheckedImage(file, str(number)) for number, file in enumerate(pictures)]
    made = []
    for number in range(12):
        seen = tuple(images[: number % 3])
        messages = [{"role": "user", "content": f"Is {number} even?"}, {"role": "assistant", "content": "yes"}]
        made.append(Row(str(number), messages, seen, None, None, None))
    for split, part in (("train", made[:8]), ("validation", made[8:])):
        write_rows(part, tmp_path / split)
    places = (tmp_path / "train", tmp_path / "validation")
    config = text_config(places, task="vlm-sft", model__base="tiny:gemma3", is_final=True)
    config = changed(
        config, rows=ROWS, lora__vision=True, training__batch_size=1, budget=BudgetSpec(epochs=1, reports=1)
    )
    result = inside.run(tmp_path / "run", config)
    assert result.num_steps == 8
    assert result.ledger is not None
    assert result.ledger.closes, result.ledger.not_given_back
    job = EvaluationConfig(
        task="vlm-sft",
        model=config.model,
        adapter=tmp_path / "run" / "adapter",
        rows=ROWS,
        answers=AnswersConfig(max_new_tokens=2),
        variants=[Variant(model="tuned")],
        test_rows=places[1],
        batch_size="auto",
        rules=2,
    )
    place = JobFolder(tmp_path / "evaluation")
    place.prepare(job)
    assert evaluate(job, place, inside.bases, Answering()).num_rows == 4
    lines = place.answers("tuned").read_text().splitlines()
    assert [len(AnsweredRow.model_validate_json(line).images) for line in lines] == [2, 0, 1, 2]


def test_a_row_with_many_images_is_among_the_longest(tmp_path: Path) -> None:
    """Though its words are few: memory is measured with it."""

    def made(number: int, words: int, num_images: int) -> Row:
        said = [{"role": "user", "content": "why? " * words}, {"role": "assistant", "content": "so"}]
        images = tuple(CheckedImage(tmp_path / f"{i}.png", str(i)) for i in range(num_images))
        return Row(str(number), said, images, None, None, None)

    write_rows([made(0, 1, 9), *(made(number, 5, 1) for number in range(1, 100))], tmp_path / "rows")
    rows = Dataset.load_from_disk(str(tmp_path / "rows"))
    found = longest_rows(rows, lambda one: 100 * len(one["images"]) + len(one["messages"][0]["content"]), 3)
    assert [len(one["images"]) for one in found] == [9, 1, 1]


def test_a_base_s_own_image_token_in_the_words_is_reported(built: Any, pictures: list[Path]) -> None:
    encoder = Encoder(built["tiny:qwen2-vl"][1], ROWS, has_images=True)
    for images in ([], [str(pictures[0])]):
        with pytest.raises(FieldError, match="write <image> where an image stands"):
            encoder.num_tokens(row(images, "What is <|image_pad|>?", "a"))


def test_a_placeholder_is_no_keyword() -> None:
    prompts = PromptsSpec.model_validate({"adaptive": [{"keywords": ["image"], "prompt": "Look."}]})
    assert prompted(row(["x"], "What is on <image>?", "a"), "adaptive", prompts)["messages"][0]["role"] == "user"
    assert prompted(row(["x"], "Which image? <image>", "a"), "adaptive", prompts)["messages"][0]["content"] == "Look."
