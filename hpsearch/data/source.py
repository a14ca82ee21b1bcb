"""Opening what `data.source` names: a file, a saved folder, a hub data set, or one of scikit-learn's own."""

from __future__ import annotations

import hashlib
import logging
import re
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpsearch.data.bundled import BUNDLED
from hpsearch.data.unreadable import ROW, holds_no_objects, is_of_rows, why_unreadable
from hpsearch.errors import FieldError, HpsearchError, did_you_mean
from hpsearch.files import draft_of
from hpsearch.spec.data import DataSpec

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict
    from pyarrow.parquet import FileMetaData

_READERS = {".json": "json", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet"}
_BATCH_BYTES, _BATCH_ROWS = 2**22, 1000
_SPLIT_COLUMN = "split"


@dataclass(frozen=True)
class Source:
    """An opened source: its rows, the folder of its relative image paths, and its files."""

    rows: Dataset
    images: Path
    files: list[Path]
    file: Path | None = None
    """The one file of the rows, if there is one that a person can open."""


def open_source(data: DataSpec, folder: Path) -> Source:
    """Opens the data; relative paths start at `folder`, the study file's own.

    Raises:
        FieldError: the source can't be opened.
        HpsearchError: the hub can't be reached; the study file may be right.
    """
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(logging.CRITICAL)  # its errors are reported here, once
    if data.source.startswith("sklearn:"):
        name = data.source.removeprefix("sklearn:")
        if name not in BUNDLED:
            raise FieldError("data.source", f"there is no {data.source!r}; {did_you_mean(name, list(BUNDLED))}")
        return Source(BUNDLED[name](), folder, [])
    path = (folder / data.source).expanduser()
    images = folder / data.images if data.images else path.parent
    if path.is_file():
        return Source(_read_file(path), images, [path.resolve()], path)
    if path.is_dir():
        rows = _opened(path, _load_folder, path)
        return Source(rows, images, _cache_files(rows))
    if path.suffix in _READERS or data.source.startswith((".", "/", "~")):
        raise FieldError("data.source", f"there is no file or folder {path}{_near(data, path)}")
    return _open_hub(data, path, images)


def _read_file(path: Path) -> Dataset:
    if path.suffix not in _READERS:
        raise FieldError("data.source", f"{path.name}: expected one of {', '.join(_READERS)}")
    if path.suffix == ".parquet":
        return _opened(path, _read_parquet, path.resolve())
    rows = _opened(path, _read_text, path)
    if path.suffix == ".json" and rows.column_names == ["text"] and holds_no_objects(path):
        raise FieldError("data.source", f"{path.name}: its rows are no objects; {ROW}")
    if path.suffix == ".csv" and len(rows.column_names) == 1 and (found := re.search(r"[;\t]", rows.column_names[0])):
        message = f"its values are separated by {found.group()!r}; save it again as CSV with commas, or as JSONL"
        raise FieldError("data.source", message)
    return rows


def _read_text(path: Path) -> Dataset:
    """JSON is validated: the builder of `datasets` 5.2 keeps texts that are no UTF-8, which fail when they are used."""
    from datasets import load_dataset

    options: dict[str, Any] = {"keep_default_na": False} if path.suffix == ".csv" else {}
    rows = load_dataset(_READERS[path.suffix], data_files=str(path), split="train", **options)
    if path.suffix != ".csv":
        rows.data.validate(full=True)
    return rows


def _read_parquet(file: Path) -> Dataset:
    """Like `load_dataset`, through an Arrow file in its cache, but in small batches.

    The builder of `datasets` 5.2 reads whole row groups, which may be the whole file, and Arrow buffers the next ones:
    images need twice their size at once. With a buffer size, `ParquetFile` reads page by page.
    """
    import datasets
    import pyarrow as pa
    from datasets.arrow_writer import ArrowWriter
    from datasets.table import table_cast
    from pyarrow.parquet import ParquetFile

    status = file.stat()
    name = hashlib.sha256(f"{file} {status.st_size} {status.st_mtime_ns}".encode()).hexdigest()
    cached = Path(datasets.config.HF_DATASETS_CACHE) / "hpsearch" / f"{name}.arrow"
    if not cached.exists():
        cached.parent.mkdir(parents=True, exist_ok=True)
        draft = draft_of(cached)
        try:
            with ParquetFile(file, buffer_size=2**20, pre_buffer=False) as rows:
                features = datasets.Features.from_arrow_schema(rows.schema_arrow)
                with ArrowWriter(features=features, path=str(draft)) as writer:
                    for batch in rows.iter_batches(_batch_rows(rows.metadata), use_threads=False):
                        writer.write_table(table_cast(pa.Table.from_batches([batch]), features.arrow_schema))
                    writer.finalize()
            draft.replace(cached)
        finally:
            draft.unlink(missing_ok=True)
    return datasets.Dataset.from_file(str(cached))


def _batch_rows(metadata: FileMetaData) -> int:
    size = sum(int(metadata.row_group(i).total_byte_size) for i in range(metadata.num_row_groups))
    return max(1, min(_BATCH_ROWS, _BATCH_BYTES * int(metadata.num_rows) // max(1, size)))


def _open_hub(data: DataSpec, path: Path, images: Path) -> Source:
    from huggingface_hub import constants, is_offline_mode

    try:
        rows = _one_table(_opened(None, _load_hub, data.source, data.config))
    except FieldError as error:
        # What `datasets` makes of every outage, after it has looked among the downloaded ones (5.2, load.py,
        # `dataset_module_factory`).
        if isinstance(error.__cause__, ConnectionError) and "/" in data.source and not is_offline_mode():
            raise HpsearchError(
                f"the hub ({constants.ENDPOINT}) can't be reached to download the data set {data.source}: "
                f"{error.__cause__}\ntry again when it can be reached; here, there is no file or folder "
                f"{data.source}{_near(data, path)}, which would need no hub"
            ) from None
        if "/" in data.source:
            raise
        nothing = f"there is no file or folder {data.source}{_near(data, path)}"
        raise FieldError(error.key, f"{nothing}; from the hub it {error.message}") from None
    return Source(rows, images, _cache_files(rows))


def _near(data: DataSpec, path: Path) -> str:
    """The file of rows, or the folder, beside it that has the nearest name."""
    beside = sorted(path.parent.iterdir()) if path.parent.is_dir() else []
    known = [other.name for other in beside if is_of_rows(other) or other.is_dir()]
    near = get_close_matches(path.name, known, n=1)
    return f" (did you mean {str(Path(data.source).with_name(near[0]))!r}?)" if near else ""


def _load_hub(name: str, config: str | None) -> Dataset | DatasetDict:
    """Like `load_dataset`, without Arrow's read-ahead of Parquet files (see `_read_parquet`)."""
    from datasets import load_dataset_builder
    from pyarrow.dataset import ParquetFragmentScanOptions

    builder = load_dataset_builder(name, config)
    if hasattr(builder.config, "fragment_scan_options"):
        builder.config.fragment_scan_options = ParquetFragmentScanOptions(pre_buffer=False)
    builder.download_and_prepare()
    return builder.as_dataset()


def _load_folder(path: Path) -> Dataset:
    """A saved folder, validated: Arrow trusts its files, and reading beyond their end kills the process.

    See `Table.validate` in https://arrow.apache.org/docs/python/generated/pyarrow.Table.html.
    """
    from datasets import load_from_disk

    rows = _one_table(load_from_disk(str(path)))
    rows.data.validate(full=True)
    return rows


def _opened(path: Path | None, load: Any, *args: Any, **kwargs: Any) -> Any:
    try:
        return load(*args, **kwargs)
    except Exception as error:
        # `datasets` raises a dozen unrelated types for invalid JSON, an unreachable hub …
        raise FieldError("data.source", why_unreadable(error, path)) from error


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
    """The same data with absolute paths, for a file in another folder."""
    changes = {}
    path = (folder / data.source).expanduser()
    if path.exists() and not data.source.startswith("sklearn:"):
        changes["source"] = str(path.resolve())
    if data.held_out:
        changes["held_out"] = str((folder / data.held_out).resolve())
    if data.images:
        changes["images"] = str((folder / data.images).resolve())
    return data.model_copy(update=changes)
