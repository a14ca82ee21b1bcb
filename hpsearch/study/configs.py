"""The one place that makes training configs: a trial's and the final run's differ only in name, budget and rows."""

from __future__ import annotations

from pathlib import Path

from hpsearch.data.manifest import Manifest
from hpsearch.folders import StorageFolder
from hpsearch.spec import StudySpec
from hpsearch.spec.training import BudgetSpec
from hpsearch.trial import GIB, AnswersConfig, CacheConfig, MetricsFile, RowsConfig, TrackingConfig, TrialConfig


def training_config(
    spec: StudySpec,
    name: str,
    budget: BudgetSpec,
    manifest: Manifest,
    folder: Path,
    storage: StorageFolder,
    train_rows: Path,
    validation_rows: Path,
    tracking: TrackingConfig | None,
    *,
    is_final: bool,
) -> TrialConfig:
    """`folder` is the study file's: relative paths start there."""
    return TrialConfig(
        name=name,
        task=spec.task,
        model=spec.model.found_from(folder),
        lora=spec.lora,
        training=spec.training,
        budget=budget,
        rows=rows_config(spec),
        answers=answers_config(spec, manifest),
        images=images_config(spec, storage),
        objectives=spec.objectives,
        metrics_file=metrics_file(spec),
        curriculum=spec.curriculum,
        train_rows=train_rows,
        validation_rows=validation_rows,
        is_final=is_final,
        tracking=tracking,
    )


def rows_config(spec: StudySpec) -> RowsConfig:
    return RowsConfig(
        row_format=spec.data.columns.row_format,
        image_size=spec.data.image_size,
        system_prompt=spec.data.system_prompt,
        max_tokens=spec.data.max_tokens,
    )


def images_config(spec: StudySpec, storage: StorageFolder) -> CacheConfig | None:
    if spec.data.columns.image is None:
        return None
    return CacheConfig(folder=storage.features.resolve(), limit_bytes=int(spec.data.feature_cache_gib * GIB))


def answers_config(spec: StudySpec, manifest: Manifest) -> AnswersConfig:
    classes = manifest.classes if spec.task_facts.learns == "class" else []
    return AnswersConfig(
        head=spec.head,
        classes=classes,
        max_new_tokens=spec.evaluation.max_new_tokens,
        preference=spec.preference,
    )


def metrics_file(spec: StudySpec) -> MetricsFile | None:
    text, path = spec.evaluation.metrics_text, spec.evaluation.metrics_file
    return None if text is None else MetricsFile(name=Path(path or "metrics.py").name, text=text)
