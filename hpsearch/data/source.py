"""Opening what `data.source` names: a file, a saved folder, a hub data set, or one of scikit-learn's own."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpsearch.data.bundled import BUNDLED
from hpsearch.errors import FieldError, did_you_mean
from hpsearch.spec.data import DataSpec

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

_READERS = {".json": "json", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet"}
_SPLIT_COLUMN = "split"


@dataclass(frozen=True)
class Source:
    """An opened source: its rows, the folder of its relative image paths, and the files behind it."""

    rows: Dataset
    images: Path
    files: list[Path]


def open_source(data: DataSpec, folder: Path) -> Source:
    """Opens the data; relative paths count from `folder`, the study file's own.

    Raises:
        FieldError: the source can't be opened.
    """
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(logging.CRITICAL)  # what it can't read is told here, and once
    if data.source.startswith("sklearn:"):
        name = data.source.removeprefix("sklearn:")
        if name not in BUNDLED:
            raise FieldError("data.source", f"there is no {data.source!r}; {did_you_mean(name, list(BUNDLED))}")
        return Source(BUNDLED[name](), folder, [])
    path = (folder / data.source).expanduser()
    images = folder / data.images if data.images else path.parent
    if path.is_file():
        return Source(_read_file(path), images, [path.resolve()])
    if path.is_dir():
        rows = _opened(_load_folder, path)
        return Source(rows, images, _cache_files(rows))
    if path.suffix in _READERS or data.source.startswith((".", "/", "~")):
        raise FieldError("data.source", f"there is no file or folder {path}")
    return _open_hub(data, images)


def _read_file(path: Path) -> Dataset:
    if path.suffix not in _READERS:
        raise FieldError("data.source", f"{path.name}: expected one of {', '.join(_READERS)}")
    from datasets import load_dataset

    options: dict[str, Any] = {"keep_default_na": False} if path.suffix == ".csv" else {}
    return _opened(load_dataset, _READERS[path.suffix], data_files=str(path), split="train", **options)


def _open_hub(data: DataSpec, images: Path) -> Source:
    from datasets import load_dataset

    rows = _one_table(_opened(load_dataset, data.source, data.config))
    return Source(rows, images, _cache_files(rows))


def _load_folder(path: Path) -> Dataset:
    """A saved folder, checked: Arrow believes what its files say, and reading beyond their end kills the process.

    See `Table.validate` in https://arrow.apache.org/docs/python/generated/pyarrow.Table.html.
    """
    from datasets import load_from_disk

    rows = _one_table(load_from_disk(str(path)))
    rows.data.validate(full=True)
    return rows


def _opened(load: Any, *args: Any, **kwargs: Any) -> Any:
    try:
        return load(*args, **kwargs)
    except Exception as error:
        # `datasets` raises a dozen unrelated types for a file that is no JSON, a hub that is out of reach …
        cause = error.__cause__ or error
        first_line = (str(cause).strip() or type(cause).__name__).splitlines()[0]
        raise FieldError("data.source", f"can't be read: {first_line}") from None


def _one_table(rows: Dataset | DatasetDict) -> Dataset:
    """All splits of a data set as one table, with the name of each row's split as a column."""
    from datasets import DatasetDict, concatenate_datasets

    if not isinstance(rows, DatasetDict):
        return rows
    parts = [
        part if _SPLIT_COLUMN in part.column_names else part.add_column(_SPLIT_COLUMN, [name] * len(part))
        for name, part in rows.items()
    ]
    return concatenate_datasets(parts)


def _cache_files(rows: Dataset) -> list[Path]:
    return [Path(file["filename"]).resolve() for file in rows.cache_files]


def local_source(data: DataSpec, folder: Path) -> DataSpec:
    """The same data with relative paths made absolute, for a file that will stand elsewhere."""
    changes = {}
    path = (folder / data.source).expanduser()
    if path.exists() and not data.source.startswith("sklearn:"):
        changes["source"] = str(path.resolve())
    if data.held_out:
        changes["held_out"] = str((folder / data.held_out).resolve())
    if data.images:
        changes["images"] = str((folder / data.images).resolve())
    return data.model_copy(update=changes)
