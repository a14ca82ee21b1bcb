"""The kinds of input that are broken: for each, real ones to begin with, and the reader that a person's file meets."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

from bench.faults.fuzz import Case
from bench.faults.mutations import broken_bytes, swapped
from hpsearch.bridge.protocol import (
    Checkpoint,
    Done,
    Phase,
    Progress,
    Ready,
    Reported,
    Run,
    read_command,
    read_event,
    to_line,
)
from hpsearch.errors import InputError
from hpsearch.folders import JobFolder
from hpsearch.search.samplers import make_sampler
from hpsearch.search.space import to_optuna
from hpsearch.spec import dump_study, load_study
from hpsearch.spec.data import ColumnsSpec, DataSpec
from hpsearch.spec.foreign.file import read_foreign
from hpsearch.spec.model import ModelSpec
from hpsearch.spec.training import BudgetSpec, TrainingSpec
from hpsearch.trial import HistoryPoint, Outcome, Report, RowsConfig, TrialConfig, TrialResult

_STUDIES = Path(__file__).parents[2] / "studies"
_NUM_ROWS = 40


def study_files(folder: Path) -> Case:
    """Shipped study files, broken as text and as values; what is accepted is dumped again, and its sampler made."""
    texts = [file.read_bytes() for file in sorted(_STUDIES.glob("*.yaml"))]
    written = _values_of(folder, texts)
    file = folder / "study.yaml"

    def case(random: Random) -> None:
        if random.random() < 0.5:
            file.write_bytes(broken_bytes(random.choice(texts), random))
        else:
            text = json.dumps(swapped(random.choice(written), random), ensure_ascii=random.random() < 0.5)
            file.write_bytes(text.encode(errors="surrogatepass"))
        overrides = [_override(random)] if random.random() < 0.3 else []
        spec = load_study(file, overrides).spec
        dump_study(spec)
        if spec.search is not None:
            to_optuna(spec.search.space, spec.defaults())
            make_sampler(spec.search.sampler, spec.search.space, spec.search.seed, 0)

    return case


def _values_of(folder: Path, texts: Sequence[bytes]) -> list[Any]:
    values = []
    for text in texts:
        (folder / "whole.yaml").write_bytes(text)
        values.append(load_study(folder / "whole.yaml").spec.model_dump(mode="json", exclude_none=True))
    return values


def _override(random: Random) -> str:
    whole = random.choice(
        (
            "training.learning_rate=2e-5",
            "search.space.lora.r=[4, 8]",
            "search.sampler={name: grid}",
            "lora.target_modules=[q_proj, v_proj]",
            "data.labels={a: b}",
        )
    )
    return broken_bytes(whole.encode(), random).decode(errors="surrogateescape")


def foreign_files(folder: Path) -> Case:
    """Other tools' training files."""
    whole = b"base_model: Qwen/Qwen2.5-0.5B\nlora_r: 16\ndatasets:\n  - path: rows.jsonl\n    type: alpaca\n"
    file = folder / "their.yaml"

    def case(random: Random) -> None:
        file.write_bytes(broken_bytes(whole, random))
        read_foreign(file)

    return case


def data_sets(folder: Path) -> Case:
    """JSONL, JSON, CSV and Parquet files, and saved folders, read as `hpsearch run` reads them."""
    import datasets

    datasets.config.HF_DATASETS_CACHE = folder / "cache"
    rows = [
        {
            "question": f"Is {number} odd?",
            "answer": "yes" if number % 2 else "no",
            "group": f"g{number // 2}",
            "n": number,
        }
        for number in range(_NUM_ROWS)
    ]
    formats = _written_rows(folder, rows)

    def case(random: Random) -> None:
        suffix = random.choice(sorted(formats))
        place = folder / f"broken{suffix}"
        _remove(place)
        if suffix == "":
            _break_folder(formats[suffix], place, random)
        elif suffix in (".json", ".jsonl") and random.random() < 0.6:
            place.write_bytes(_as_json([swapped(row, random) for row in rows], lines=suffix == ".jsonl"))
        else:
            place.write_bytes(broken_bytes(formats[suffix].read_bytes(), random))
        try:
            _read_data(DataSpec(source=f"./{place.name}", columns=_COLUMNS), folder)
        finally:
            for name in ("cache", "storage"):
                shutil.rmtree(folder / name, ignore_errors=True)

    return case


_COLUMNS = ColumnsSpec(question="question", answer="answer", group="group")


def _written_rows(folder: Path, rows: list[dict[str, Any]]) -> dict[str, Path]:
    from datasets import Dataset

    table = Dataset.from_list(rows)
    formats = {suffix: folder / f"whole{suffix}" for suffix in (".jsonl", ".json", ".csv", ".parquet", "")}
    formats[".jsonl"].write_bytes(_as_json(rows, lines=True))
    formats[".json"].write_bytes(_as_json(rows, lines=False))
    table.to_csv(formats[".csv"])
    table.to_parquet(formats[".parquet"])
    table.save_to_disk(str(formats[""]))
    return formats


def _as_json(rows: list[Any], *, lines: bool) -> bytes:
    text = "\n".join(json.dumps(row) for row in rows) + "\n" if lines else json.dumps(rows)
    return text.encode(errors="surrogatepass")


def _break_folder(whole: Path, place: Path, random: Random) -> None:
    shutil.copytree(whole, place)
    file = random.choice(sorted(place.iterdir()))
    file.write_bytes(broken_bytes(file.read_bytes(), random))


def _read_data(data: DataSpec, folder: Path) -> None:
    """As far as `hpsearch run` goes before a trainer sees them: read, divided, written down."""
    from hpsearch.data.divide import divide
    from hpsearch.data.manifest import Manifest, make_manifest
    from hpsearch.data.prepared import DataFolder, read_data, write_prepared
    from hpsearch.spec.curriculum import CurriculumSpec

    storage = DataFolder(folder / "storage")
    read, files = read_data(data, folder, storage, lambda *_: None)
    splits = divide(read, data, CurriculumSpec(), folder)
    manifest = make_manifest(splits, read.left_out)
    Manifest.from_bytes(manifest.to_bytes())
    write_prepared(manifest, splits, files, storage, [("train", 1.0), ("validation", 1.0)])


def _remove(place: Path) -> None:
    if place.is_dir():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)


def images(folder: Path) -> Case:
    """Image files in many formats and modes, and names of images that name none."""
    from hpsearch.data.images import RowImages

    whole = _drawn_images()
    file = folder / "image"

    def case(random: Random) -> None:
        from datasets import Dataset

        file.write_bytes(broken_bytes(random.choice(whole), random, most=2) if random.random() < 0.9 else _bomb(random))
        name = "image" if random.random() < 0.9 else random.choice(_NAMES)
        table = Dataset.from_dict({"image": [name]})
        found = RowImages(table, "image", folder, folder / "store", lambda *_: None).of(0)
        if isinstance(found, str):  # the row is left out, and counted under these words
            raise InputError(found)

    return case


_NAMES = ("/dev/zero", "/dev/stdin", "a\0b", "x" * 5000, "../" * 2000, ".", "", "\u202e", "/proc/self/mem", "~")


def _drawn_images() -> list[bytes]:
    from PIL import Image

    made = []
    for kind, modes in {
        "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
        "JPEG": ("L", "RGB", "CMYK"),
        "GIF": ("P",),
        "BMP": ("1", "RGB"),
        "TIFF": ("1", "L", "RGB", "F", "CMYK", "I;16"),
        "WEBP": ("RGB", "RGBA"),
        "PPM": ("1", "L", "RGB"),
        "JPEG2000": ("L", "RGB"),
        "EPS": ("RGB",),
        "ICO": ("RGBA",),
    }.items():
        for mode in modes:
            content = io.BytesIO()
            Image.new(mode, (24, 16)).save(content, kind)
            made.append(content.getvalue())
    return made


def _bomb(random: Random) -> bytes:
    """A small PNG file that says it is a large image."""
    import struct
    import zlib

    width, height = random.choice(((2**15, 2**15), (2**31 - 1, 2**31 - 1), (12_000, 12_000), (0, 5), (1, 2**30)))

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, random.choice((1, 8, 16)), random.choice((0, 2, 6)), 0, 0, 0)
    rows = zlib.compress(bytes(2**20))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def folders(folder: Path) -> Case:
    """A trial's folder: config, result, history and the journal of a stage."""
    trial = JobFolder(folder / "trial")
    trial.prepare(_CONFIG)
    trial.write_result(_RESULT)
    points = [HistoryPoint(step=step, loss=2.0 / step, learning_rate=1e-4) for step in range(1, 20)]
    trial.history.write_text("".join(point.model_dump_json() + "\n" for point in points))
    stage = trial.stage(0, 1)
    stage.path.mkdir()
    stage.finish(_RESULT.reports)
    readers: list[tuple[Path, Callable[[], object]]] = [
        (trial.config, trial.job),
        (trial.result, lambda: (trial.failure(), trial.read(TrialResult))),
        (trial.history, trial.read_history),
        (stage.done, stage.reports),
    ]
    whole = [file.read_bytes() for file, _ in readers]

    def case(random: Random) -> None:
        position = random.randrange(len(readers))
        file, read = readers[position]
        try:
            if file.suffix == ".json" and random.random() < 0.5:
                text = json.dumps(swapped(json.loads(whole[position]), random))
                file.write_bytes(text.encode(errors="surrogatepass"))
            else:
                file.write_bytes(broken_bytes(whole[position], random))
            read()
        finally:
            file.write_bytes(whole[position])

    return case


_CONFIG = TrialConfig(
    name="demo",
    task="text-sft",
    model=ModelSpec(base="tiny:qwen2"),
    lora={"r": 8},  # type: ignore[arg-type]
    training=TrainingSpec(),
    budget=BudgetSpec(),
    rows=RowsConfig(row_format="question-answer", image_size=None, system_prompt=None, max_tokens=256),
    train_rows=Path("train"),
    validation_rows=Path("validation"),
)
_RESULT = TrialResult(
    outcome=Outcome.COMPLETE, reports=[Report(step=step, loss=1.0 / step) for step in (1, 2, 3)], num_steps=12
)


def protocol_lines(_folder: Path) -> Case:
    """What worker and trainer say to each other."""
    messages = (
        Run(folder=Path("trial")),
        Checkpoint(),
        Ready(device="CPU"),
        Phase(name="loading", done=1, total=2),
        Progress(step=1, num_steps=4, loss=2.0),
        Reported(step=1, num_reports=4, loss=1.5, metrics={"exact_match": 0.5}),
        Done(clean=True),
    )

    def case(random: Random) -> None:
        message = random.choice(messages)
        if random.random() < 0.5:
            line = broken_bytes(to_line(message), random)
        else:
            line = json.dumps(swapped(message.model_dump(mode="json"), random)).encode(errors="surrogatepass")
        (read_command if random.random() < 0.5 else read_event)(line)

    return case


def question_files(folder: Path) -> Case:
    """What `hpsearch predict --rows` is given."""
    from hpsearch.results.questions import check_columns, question_rows, read_lines

    rows = [{"question": f"Is {number} odd?", "image": f"{number}.png"} for number in range(_NUM_ROWS)]
    file = folder / "rows.jsonl"
    data = DataSpec(source="rows.jsonl", columns=ColumnsSpec(question="question", answer="answer", image="image"))

    def case(random: Random) -> None:
        whole = _as_json([swapped(row, random) for row in rows] if random.random() < 0.5 else rows, lines=True)
        file.write_bytes(whole if random.random() < 0.3 else broken_bytes(whole, random))
        lines = read_lines(file)
        check_columns(file, lines, {"question": "question"})
        question_rows(lines, data, folder, folder / "store", lambda *_: None, has_images=random.random() < 0.3)

    return case


KINDS: dict[str, tuple[int, Callable[[Path], Case]]] = {
    "study files": (35, study_files),
    "other tools": (5, foreign_files),
    "data sets": (15, data_sets),
    "images": (15, images),
    "folders": (15, folders),
    "protocol": (10, protocol_lines),
    "questions": (5, question_files),
}
"""Kind → (its share of the cases in percent, how its cases are made)."""
