"""An image is encoded once, and no gradient enters a frozen vision tower."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from datasets import Dataset
from PIL import Image

from hpsearch.data.images import CheckedImage
from hpsearch.folders import JobFolder
from hpsearch.jobs import EvaluationConfig, Variant
from hpsearch.spec.evaluation import PromptsSpec
from hpsearch.spec.model import LoraSpec, ModelSpec
from hpsearch.spec.training import BudgetSpec
from hpsearch.train.adapters import attach
from hpsearch.train.bases import Base
from hpsearch.train.encoding import Encoder
from hpsearch.train.evaluation import evaluate
from hpsearch.train.features import Features, make_encoder
from hpsearch.train.images import Resized, load_image, process, process_each
from hpsearch.train.tasks import TASKS
from hpsearch.train.tensor_cache import TensorCache
from hpsearch.trial import GIB, AnswersConfig, CacheConfig, TrialConfig, TrialResult
from tests.integration.conftest import ROWS, changed, text_config
from tests.integration.inside import Answering, Inside

Rows = tuple[Path, Path]
Gradients = dict[str, torch.Tensor]
VISION = ["tiny:gemma3", "tiny:qwen2-vl", "tiny:qwen2.5-vl"]
TOWERS = ("SiglipVisionModel", "Qwen2VisionTransformerPretrainedModel", "Qwen2_5_VisionTransformerPretrainedModel")
NUM_IMAGES = 32
"""Of the rows: 24 to train on, 8 to validate with, each with its own."""


@pytest.fixture
def kept(tmp_path: Path) -> CacheConfig:
    return CacheConfig(folder=tmp_path / "features", limit_bytes=GIB)


@pytest.fixture
def asked() -> Iterator[list[bool]]:
    """For each call of a vision tower in this process: whether a gradient will go through what it said."""
    calls: list[bool] = []

    def note(module: torch.nn.Module, _: Any, said: Any) -> None:
        if type(module).__name__ in TOWERS:
            calls.append(said.last_hidden_state.requires_grad)

    hook = torch.nn.modules.module.register_module_forward_hook(note)
    yield calls
    hook.remove()


def config_of(rows: Rows, kept: CacheConfig | None, **changes: Any) -> TrialConfig:
    """Six steps with two reports, without dropout."""
    config = text_config(rows, task="vlm-sft", model__base="tiny:gemma3", lora__dropout=0.0, images=kept)
    return changed(config, **{"budget": BudgetSpec(max_steps=6, reports=2), **changes})


def losses(result: TrialResult) -> list[float]:
    return [report.loss for report in result.reports]


@pytest.fixture
def by_pixels(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """While this is active, models are given pixels."""
    monkeypatch.setattr(Features, "fit", staticmethod(lambda _: False))
    return monkeypatch


@pytest.mark.parametrize("name", VISION)
def test_losses_and_gradients_are_those_of_pixels(
    image_rows: Rows, inside: Inside, kept: CacheConfig, asked: list[bool], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Within float32's rounding, and with features that are read bit for bit as with those that were just made."""
    base = inside.bases.get(TASKS["vlm-sft"], config_of(image_rows, kept, model__base=name).model)
    rows = list(Dataset.load_from_disk(str(image_rows[0])))[:4]
    made, calls = loss_of(base, rows, kept), len(asked)
    read = loss_of(base, rows, kept)
    assert (calls, len(asked)) == (4, 4), "each image is asked for once"
    torch.testing.assert_close(read, made, rtol=0, atol=0)
    torch.testing.assert_close(loss_of(base, rows, None), made, rtol=0, atol=0)
    monkeypatch.setattr(Features, "fit", staticmethod(lambda _: False))
    torch.testing.assert_close(loss_of(base, rows, None), made, rtol=1e-4, atol=1e-6)
    assert made["loss"] > 0
    assert any(value.abs().max() > 1e-3 for value in made.values())


def loss_of(base: Base, rows: list[Any], kept: CacheConfig | None) -> Gradients:
    """The loss of a batch, with the gradients of a new adapter."""
    torch.manual_seed(0)
    model = attach(base.fresh_model(), config_of((Path(), Path()), None).lora)
    encoder = make_encoder(base, model, ROWS, kept, has_images=True)
    batch = encoder.batch([encoder.encode(row) for row in rows])
    loss = model.train()(**batch).loss
    loss.backward()
    return {"loss": loss.detach()} | {name: w.grad for name, w in model.named_parameters() if w.grad is not None}


@pytest.mark.parametrize("name", VISION)
def test_answers_are_those_of_pixels(
    image_rows: Rows, inside: Inside, kept: CacheConfig, by_pixels: pytest.MonkeyPatch, name: str
) -> None:
    """`generate` passes features to its first forward only: they take the place of tokens of the prompt."""
    base = inside.bases.get(TASKS["vlm-sft"], config_of(image_rows, kept, model__base=name).model)
    rows = list(Dataset.load_from_disk(str(image_rows[0])))[:3]
    model = base.fresh_model().eval()
    wanted = said(base, model, rows, None)
    by_pixels.undo()
    assert said(base, model, rows, kept) == wanted
    assert said(base, model, rows, kept) == wanted


def said(base: Base, model: Any, rows: list[Any], kept: CacheConfig | None) -> list[str]:
    encoder = make_encoder(base, model, ROWS, kept, has_images=True)
    method = TASKS["vlm-sft"].method(encoder, AnswersConfig(max_new_tokens=5), None)
    encoded = [method.encode(row) for row in rows]
    return [answer.text for answer in method.answers(model, encoded, torch.float32, is_tuned=False)]


@pytest.fixture(scope="module")
def trained(
    image_rows: Rows, inside: Inside, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, CacheConfig, list[float], int]:
    """A final run that began with nothing kept: its folder, what it left, its losses, its calls of the tower."""
    folder = tmp_path_factory.mktemp("trained")
    kept = CacheConfig(folder=folder / "features", limit_bytes=GIB)
    calls: list[int] = []
    ask = Features._run_tower
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Features, "_run_tower", lambda self, given: (calls.append(1), ask(self, given))[1])
        config = config_of(image_rows, kept, is_final=True, objectives=["exact_match"])
        result = inside.run(folder / "run", config)
    assert result.ledger is not None
    assert result.ledger.closes, result.ledger.not_given_back
    return folder, kept, losses(result), len(calls)


def test_an_image_is_asked_once_for_all_trials_and_their_evaluation(
    trained: tuple[Path, CacheConfig, list[float], int],
    image_rows: Rows,
    inside: Inside,
    tmp_path: Path,
    asked: list[bool],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, kept, found, calls = trained
    assert calls == NUM_IMAGES
    monkeypatch.setattr("hpsearch.train.image_texts.load_image", lambda *_: pytest.fail("an image was read again"))
    again = inside.run(tmp_path / "again", config_of(image_rows, kept, objectives=["exact_match"]))
    assert losses(again) == found, "warm as cold, bit for bit"
    other = changed(config_of(image_rows, kept), lora__r=4, training__learning_rate=1e-4, training__micro_batch=1)
    inside.run(tmp_path / "other", other)
    job = EvaluationConfig(
        task="vlm-sft",
        model=other.model,
        adapter=folder / "run" / "adapter",
        rows=ROWS,
        answers=AnswersConfig(max_new_tokens=3),
        variants=[Variant(model=model, prompt=prompt) for model in ("base", "tuned") for prompt in ("none", "static")],
        prompts=PromptsSpec(static="Look closely."),
        test_rows=image_rows[1],
        batch_size="auto",
        rules=2,
        images=kept,
    )
    place = JobFolder(tmp_path / "evaluation")
    place.prepare(job)
    assert evaluate(job, place, inside.bases, Answering()).num_rows == 8
    assert asked == []


def test_an_image_that_pixels_are_needed_of_is_kept_at_its_size(
    inside: Inside, tmp_path: Path, kept: CacheConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the tower has an adapter. One that is as small as it should be is read from its own file."""
    base = inside.bases.get(TASKS["vlm-sft"], config_of((Path(), Path()), kept).model)
    model = attach(base.fresh_model(), LoraSpec(vision=True))
    size = ROWS.model_copy(update={"image_size": 40})
    encoder = make_encoder(base, model, size, kept, has_images=True)
    rows = []
    for side in (90, 30):
        file = tmp_path / f"{side}.png"
        Image.effect_noise((side, side // 2), 80).save(file)
        turns = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "This"}]
        rows.append({"messages": turns, "images": [str(file)], "image_sha256s": [str(side)]})
    wanted = [process(encoder.processor, "<start_of_image>", [load_image(Path(row["images"][0]), 40)]) for row in rows]
    for row, pixels in zip(rows, wanted, strict=True):
        torch.testing.assert_close(encoder.encode(row).others["pixel_values"], pixels["pixel_values"], rtol=0, atol=0)
    read: list[Path] = []
    monkeypatch.setattr(
        "hpsearch.train.images.load_image", lambda path, size: (read.append(path), load_image(path, size))[1]
    )
    for row, pixels in zip(rows, wanted, strict=True):
        torch.testing.assert_close(encoder.encode(row).others["pixel_values"], pixels["pixel_values"], rtol=0, atol=0)
    assert read == [Path(rows[1]["images"][0])]
    assert len(list(kept.folder.glob("*/*"))) == 1


@pytest.mark.parametrize("room", ["features", "images"])
def test_what_is_kept_of_images_is_left_behind_when_they_are_decoded_otherwise(
    room: str, inside: Inside, kept: CacheConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as photographs on their side, before EXIF was read."""
    base = inside.bases.get(TASKS["vlm-sft"], config_of((Path(), Path()), kept).model)
    Image.effect_noise((90, 45), 80).save(tmp_path / "image.png")
    image = CheckedImage(tmp_path / "image.png", "its checksum")

    def keep() -> None:
        if room == "images":
            Resized(TensorCache(kept), 40).load(image)
        else:
            features = Features(base, 40, TensorCache(kept))
            (said,) = process_each(base.fresh_processor(), "<start_of_image>", [load_image(image.path, 40)])[1]
            features.given([features.picture(image, said)])

    for decoded_as, num_kept in ((7, 1), (7, 1), (8, 2)):
        monkeypatch.setattr(f"hpsearch.train.{room}.DECODED_AS", decoded_as)
        keep()
        assert len(list(kept.folder.glob("*/*"))) == num_kept


@pytest.mark.parametrize("orientation", [1, 6])
def test_the_tokens_of_a_photograph_are_counted_as_it_stands(
    orientation: int, inside: Inside, kept: CacheConfig, tmp_path: Path
) -> None:
    base = inside.bases.get(TASKS["vlm-sft"], config_of((Path(), Path()), kept, model__base="tiny:qwen2-vl").model)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.effect_noise((240, 80), 80).convert("RGB").save(tmp_path / "image.jpg", exif=exif)
    turns = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "This"}]
    row = {"messages": turns, "images": [str(tmp_path / "image.jpg")], "image_sha256s": ["its checksum"]}
    grids = []
    for size in (None, (224, 56)):
        rows = ROWS.model_copy(update={"image_size": size})
        encoder = Encoder(base.fresh_processor(), rows, has_images=True)
        encoded = encoder.encode(row)
        assert encoder.num_tokens(row) == len(encoded)
        grids.append(encoded.others["image_grid_thw"][0].tolist())
    _, height, width = grids[0]
    assert (height > width) == (orientation == 6)
    assert grids[1][1] < grids[1][2], "a pair is what the study asks for, of every image"


def test_features_take_16_bits_a_number_where_the_study_computes_in_16(inside: Inside) -> None:
    """What a tower on CUDA says in float32 is a 16-bit product: 2.6 MB of an image for Gemma 3, or half."""
    spec = ModelSpec(base="tiny:gemma3", dtype="bfloat16")
    features = Features(inside.bases.get(TASKS["vlm-sft"], spec), None, None)
    product = torch.randn(1, 16, 128).bfloat16()
    tower = Mock()
    tower.get_image_features = lambda **_: SimpleNamespace(pooler_output=product.float())
    features._tower = tower
    torch.testing.assert_close(features._run_tower({}), product, rtol=0, atol=0)


@pytest.mark.usefixtures("by_pixels")
@pytest.mark.parametrize("name", ["tiny:gemma3", "tiny:qwen2.5-vl"])
def test_no_gradient_enters_a_frozen_tower(
    image_rows: Rows, inside: Inside, tmp_path: Path, asked: list[bool], name: str
) -> None:
    """Where it is given pixels, as those of architectures without features are, and with gradient checkpointing."""
    one_step = BudgetSpec(max_steps=1, reports=1)
    config = config_of(
        image_rows, None, model__base=name, training__gradient_checkpointing=True, budget=one_step, lora__vision=False
    )
    inside.run(tmp_path / "frozen", config)
    assert asked
    assert not any(asked)
    inside.run(tmp_path / "adapted", changed(config, lora__vision=True))
    assert any(asked), "an adapter in the tower learns"
