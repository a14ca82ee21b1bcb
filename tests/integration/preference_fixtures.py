"""Preferences to learn: rows of text and of images, and a trial on them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from PIL import Image

from hpsearch.data.images import CheckedImage
from hpsearch.data.prepared import write_rows
from hpsearch.data.rows import Row
from hpsearch.spec.model import LoraSpec
from hpsearch.spec.preference import PreferenceSpec
from hpsearch.trial import AnswersConfig, RowsConfig, TrialConfig
from tests.integration.conftest import changed, text_config

Rows = tuple[Path, Path]
RAW = RowsConfig(row_format="raw-preference", image_size=None, system_prompt=None, max_tokens=128)
LABELLED = RAW.model_copy(update={"row_format": "raw-labelled"})
CHAT = RAW.model_copy(update={"row_format": "preference"})
PICTURES = CHAT.model_copy(update={"image_size": (28, 28)})


def pair(number: int, prompt: str, chosen: str, rejected: str, image: Path | None = None) -> Row:
    messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": chosen}]
    images = (CheckedImage(image, hashlib.sha256(image.read_bytes()).hexdigest()),) if image else ()
    return Row(str(number), messages, images, group=None, label=None, split=None, rejected=rejected)


def labelled(number: int, prompt: str, answer: str, desirable: bool) -> Row:
    messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
    return Row(str(number), messages, (), group=None, label=None, split=None, desirable=desirable)


def written(folder: Path, rows: list[Row], num_train: int) -> Rows:
    write_rows(rows[:num_train], folder / "train")
    write_rows(rows[num_train:], folder / "validation")
    return folder / "train", folder / "validation"


def parity_pairs() -> list[Row]:
    """No two of the same length. No token reaches across the border of a prompt, where trl cuts it."""
    words = [1, 5, 2, 7, 3, 8, 4, 6, 2, 3, 1, 4]
    return [
        pair(number, f"Q:{' why?' * many}\nA:", f" because{' so' * (many % 4)}", f" no{' so' * (number % 3)} data")
        for number, many in enumerate(words)
    ]


def parity_answers() -> list[Row]:
    pairs = parity_pairs()
    return [
        labelled(
            number,
            row.messages[0]["content"],
            row.messages[1]["content"] if number % 3 else str(row.rejected),
            bool(number % 3),
        )
        for number, row in enumerate(pairs)
    ]


def polite_pairs(count: int) -> list[Row]:
    """What is preferred is plain: yes."""
    return [pair(number, f"Is {number} a number?", "yes", "no") for number in range(count)]


def picture_pairs(folder: Path, count: int) -> list[Row]:
    """What is preferred is what tiny:gemma3 finds less likely."""
    rows = []
    for number in range(count):
        file = folder / f"{number}.png"
        Image.new("RGB", (28, 28), (8 * number, 255 - 8 * number, 40)).save(file)
        rows.append(pair(number, "Is it dark or light?", "dark", "light", file))
    return rows


def config_of(rows: Rows, rows_config: RowsConfig = RAW, preference: Any = None, **changes: Any) -> TrialConfig:
    config = text_config(rows, task="text-preference", lora=LoraSpec(r=8, alpha=16, dropout=0.0))
    answers = AnswersConfig(preference=PreferenceSpec(**(preference or {})), max_new_tokens=8)
    return changed(config, **{"rows": rows_config, "answers": answers, **changes})
