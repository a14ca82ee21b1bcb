"""The merged model of a final run: made by the trainer, checked here, and kept only if it answers as the tuned one."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hpsearch.bridge.follow import do_job
from hpsearch.bridge.trainer_process import StartTrainer
from hpsearch.data.images import CheckedImage
from hpsearch.data.prepared import DataFolder, ensure_prepared, images_of, write_rows
from hpsearch.data.rows import Row
from hpsearch.errors import FieldError, HpsearchError
from hpsearch.files import write_text
from hpsearch.folders import JobFolder, StorageFolder
from hpsearch.jobs import ExportConfig, ExportResult, Tell
from hpsearch.results.export_folder import CARD, Dtype, Made, check_target, export_in, made_of, new_export, write_record
from hpsearch.results.final import RunFolder
from hpsearch.spec import StudyFile
from hpsearch.trial import AnswersConfig, TrialConfig

if TYPE_CHECKING:
    from datasets import Dataset

NUM_CHECKED = 4
MOST_LOST = 0.5
"""If the merged model is off by more than this share of the adapter's change, it is not the tuned model."""


@dataclass(frozen=True)
class Merged:
    """`is_new`: it was made by this call."""

    folder: Path
    result: ExportResult
    is_new: bool


def merge_run(
    folder: RunFolder,
    target: Path,
    dtype: Dtype,
    card: Callable[[ExportResult], str],
    storage: StorageFolder,
    start_trainer: StartTrainer,
    tell: Tell,
    *,
    force: bool,
) -> Merged:
    """The run's adapter merged into its base, with processor, tokenizer and `card`, in a folder of its own.

    Raises:
        InputError: not a run folder, or the target holds something else.
        HpsearchError: the job failed, or the merged model differs from base and adapter.
    """
    file, _, config = folder.load()
    made = made_of(folder, "merged", dtype)
    if check_target(target, made, force=force):
        there = export_in(target)
        assert there is not None
        if there.has_own_card(target):
            _write_card(target, made, there.result, card)
        return Merged(target, there.result, is_new=False)
    job_folder = JobFolder(folder.exports / "merging")
    with new_export(target) as draft:
        job = ExportConfig(
            task=config.task,
            model=config.model,
            adapter=folder.adapter.resolve(),
            rows=config.rows,
            dtype=dtype,
            check_rows=_check_rows(folder, file, config, storage, job_folder.path, tell),
            output=draft.resolve(),
        )
        job_folder.prepare(job)
        do_job(job_folder, start_trainer, tell)
        result = job_folder.read(ExportResult)
        _check(result, job_folder)
        copy_head(folder, config.answers, draft)
        _write_card(draft, made, result, card)
    shutil.rmtree(job_folder.path, ignore_errors=True)  # it is for a person whose export failed
    return Merged(target, result, is_new=True)


def _write_card(folder: Path, made: Made, result: ExportResult, card: Callable[[ExportResult], str]) -> None:
    write_text(folder / CARD, card(result))
    write_record(folder, made, result)


def _check(result: ExportResult, folder: JobFolder) -> None:
    """Raises HpsearchError where the merged model differs from base and adapter."""
    if not result.reads_alike:
        raise HpsearchError(
            "the processor that was saved with the merged model reads the check rows differently than the base's; "
            f"nothing was kept (see {folder.result})"
        )
    if not result.difference <= result.tolerance:
        raise HpsearchError(
            f"the merged model's logits differ from base and adapter by up to {result.difference:.3g}, more than "
            f"{result.tolerance:.3g}; nothing was kept (see {folder.result})"
        )
    if not result.share_lost <= MOST_LOST:
        raise HpsearchError(
            f"16 bits are too coarse for this adapter's changes: the merged model is off by {result.share_lost:.0%} "
            "of it; nothing was kept. --dtype float16 is finer than bfloat16; else export the adapter itself"
        )


def copy_head(folder: RunFolder, answers: AnswersConfig, to: Path) -> None:
    """A classifier's head and its classes, where the run has one."""
    head = folder.adapter / "head.safetensors"
    if head.exists():
        shutil.copyfile(head, to / head.name)
        facts = {"classes": answers.classes, **answers.head.model_dump(exclude={"balance_beta"})}
        write_text(to / "head.json", json.dumps(facts, indent=2, ensure_ascii=False))


def _check_rows(
    folder: RunFolder, file: StudyFile, config: TrialConfig, storage: StorageFolder, place: Path, tell: Tell
) -> Path:
    """A folder of a few validation rows, or of one synthetic row where the data is unavailable."""
    from datasets import Dataset, disable_progress_bars

    disable_progress_bars()
    path = place / "rows"
    shutil.rmtree(path, ignore_errors=True)
    place.mkdir(parents=True, exist_ok=True)
    try:
        rows = Dataset.load_from_disk(str(_validation_rows(folder, file, config, storage, tell)))
        rows = rows.select(_with_images_first(rows)[:NUM_CHECKED])
        is_there = all(image.path.exists() for row in rows for image in images_of(row))
    except (FieldError, OSError):
        is_there = False
    if is_there:
        rows.save_to_disk(str(path))
    else:
        tell("the validation rows are not on this machine: checking with an example question", 0, 0)
        write_rows([_made_up_row(place, has_image=file.spec.data.columns.image is not None)], path)
    return path.resolve()


def _with_images_first(rows: Dataset) -> list[int]:
    """Positions of rows with and without images, those with images first: they use more of the model."""
    positions = list(range(len(rows)))
    if "images" in rows.column_names:
        num_images = [len(paths) for paths in rows["images"]]
        positions.sort(key=lambda position: num_images[position] == 0)
    return positions


def _validation_rows(
    folder: RunFolder, file: StudyFile, config: TrialConfig, storage: StorageFolder, tell: Tell
) -> Path:
    """Raises FieldError where they are missing and can't be made again."""
    if config.validation_rows.is_dir():
        return config.validation_rows
    _, manifest, _ = folder.load()
    data = DataFolder(storage.path)
    paths = ensure_prepared(
        manifest, file.spec.data, folder.path, data, [("validation", 1.0)], tell, file.spec.task_facts.images
    )
    return paths["validation", 1.0]


def _made_up_row(place: Path, *, has_image: bool) -> Row:
    messages = [{"role": "user", "content": "What is this?"}, {"role": "assistant", "content": "It is hard to tell."}]
    image = place / "grey.png"
    if has_image:
        from PIL import Image

        Image.new("RGB", (224, 224), (128, 128, 128)).save(image)
    images = (CheckedImage(image, hashlib.sha256(image.read_bytes()).hexdigest()),) if has_image else ()
    return Row("0", messages, images, None, None, None)
