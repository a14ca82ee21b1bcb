"""100,000 rows with 50,000 images, prepared: seconds, peak memory, and what a kill in the middle costs.

Each preparation is a process of its own, from the study file to rows on disk, as `hpsearch run` does it before its
first trial: images checked, rows read, tokens counted by a trainer, splits drawn and written. Two rows share each
image; half of the images are PNG, half JPEG. The peak is of resident memory (`ru_maxrss`), which does not depend on
what else a machine does; the seconds do. "After two kills" is a preparation whose first try was killed when half of the
images had been looked at, and its second one when half of the rows had been counted; its other way is one from nothing.
"On one core" is one that may use no other. It runs only when it is named: it takes minutes.
"""

from __future__ import annotations

import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from joblib import cpu_count
from PIL import Image

from bench.comparison import Comparison, Finding, Say, Side

NUM_ROWS = 100_000
NUM_IMAGES = 50_000
_SIDE = 96
_PER_FOLDER = 1000
_STUDY = """\
study: large
task: vlm-sft
model: {base: "tiny:gemma3"}
data:
  source: rows.jsonl
  columns: {image: image, question: question, answer: answer}
search:
  trials: 1
  space: {training.learning_rate: {low: 1e-5, high: 1e-3}}
"""
_GROUPED = "data.group_duplicates=true"
_COUNTING = "counting tokens"


def measure(say: Say) -> list[Finding]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        say(f"{NUM_ROWS:,} rows and {NUM_IMAGES:,} images are made")
        write_data(folder / "few", NUM_ROWS // 10, NUM_IMAGES // 10)
        write_data(folder / "many", NUM_ROWS, NUM_IMAGES)
        few = _prepared("a tenth of them, from nothing", folder / "few", "first", say)
        whole = _prepared("from nothing", folder / "many", "first", say)
        alone = _prepared("from nothing, on one core", folder / "many", "alone", say, cores=1)
        _prepared("once more", folder / "many", "first", say)
        _prepared("once more, with data.group_duplicates", folder / "many", "first", say, _GROUPED)
        _kill(folder / "many", "killed", "checking images", NUM_IMAGES // 2, say)
        _kill(folder / "many", "killed", _COUNTING, NUM_ROWS // 2, say)
        resumed = _prepared("after two kills", folder / "many", "killed", say)
    return [
        Comparison(
            f"preparing {NUM_ROWS:,} rows with {NUM_IMAGES:,} images: half was looked at, and counted, before a kill",
            "s",
            Side("after two kills", [resumed["seconds"]]),
            Side("from nothing", [whole["seconds"]]),
        ),
        Comparison(
            f"counting the tokens of {NUM_ROWS:,} rows",
            "s",
            Side(f"on {cpu_count()} cores", [whole["stages"][_COUNTING]]),
            Side("on one", [alone["stages"][_COUNTING]]),
        ),
        Comparison(
            "peak memory of preparing: the process at the command line",
            "MiB",
            Side(f"{NUM_ROWS // 10:,} rows with {NUM_IMAGES // 10:,} images", [few["own_mib"]]),
            Side(f"{NUM_ROWS:,} with {NUM_IMAGES:,}", [whole["own_mib"]]),
        ),
        Comparison(
            "peak memory of preparing: the trainer that counts tokens",
            "MiB",
            Side(f"{NUM_ROWS // 10:,} rows with {NUM_IMAGES // 10:,} images", [few["trainer_mib"]]),
            Side(f"{NUM_ROWS:,} with {NUM_IMAGES:,}", [whole["trainer_mib"]]),
        ),
    ]


def write_data(folder: Path, num_rows: int, num_images: int) -> None:
    """The study, its rows, and images that are no two alike."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.yaml").write_text(_STUDY)
    kinds = ("jpg", "png")
    files = [f"images/{number // _PER_FOLDER}/{number}.{kinds[number % 2]}" for number in range(num_images)]
    for number, file in enumerate(files):
        if number % _PER_FOLDER == 0:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
        coarse = np.random.default_rng(number).integers(0, 256, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((_SIDE, _SIDE), Image.Resampling.BILINEAR).save(folder / file)
    with (folder / "rows.jsonl").open("w") as rows:
        for number in range(num_rows):
            row = {"image": files[number % num_images], "question": f"What is in picture {number}?", "answer": "noise"}
            rows.write(json.dumps(row) + "\n")


def _start(folder: Path, storage: str, *overrides: str, cores: int | None = None) -> subprocess.Popen[str]:
    allowed = sorted(os.sched_getaffinity(0))[:cores]
    return subprocess.Popen(
        [
            "taskset",
            "--cpu-list",
            ",".join(map(str, allowed)),
            sys.executable,
            "-m",
            "bench.large_data",
            str(folder),
            storage,
            *overrides,
        ],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
        env=os.environ | {"HF_DATASETS_CACHE": str(folder / "cache")},
    )


def _prepared(
    what: str, folder: Path, storage: str, say: Say, *overrides: str, cores: int | None = None
) -> dict[str, Any]:
    process = _start(folder, storage, *overrides, cores=cores)
    said = process.communicate()[0].splitlines()
    if process.returncode:
        raise RuntimeError(f"a preparation ended with exit code {process.returncode}")
    found: dict[str, Any] = json.loads(said[-1])
    stages = ", ".join(f"{stage} {seconds:.0f} s" for stage, seconds in found["stages"].items())
    say(
        f"{what}: {found['seconds']:.0f} s ({stages}); {found['decoded']:,} images decoded; "
        f"peak {found['own_mib']:.0f} MiB, of the trainer {found['trainer_mib']:.0f}"
    )
    for note in found["notes"]:
        say(f"  {note}")
    return found


def _kill(folder: Path, storage: str, stage: str, after: int, say: Say) -> None:
    process = _start(folder, storage)
    assert process.stdout is not None
    for line in process.stdout:
        name, _, done = line.strip().rpartition(" ")
        if name == stage and int(done) >= after:
            break
    process.kill()
    process.wait()
    process.stdout.close()
    say(f"killed at {stage}, {int(done):,} of {NUM_ROWS:,} rows")


def prepare(folder: Path, storage: Path, overrides: list[str]) -> None:
    """Progress line by line; at last what it took, as JSON."""
    from hpsearch.data import images
    from hpsearch.data.prepared import DataFolder, write_prepared
    from hpsearch.folders import StorageFolder
    from hpsearch.opening.trainers import inspector
    from hpsearch.spec import load_study
    from hpsearch.study.open import final_rows, wanted_rows
    from hpsearch.study.prepare import prepare_study

    decoded = itertools.count()
    decode = images.read_first_frame
    images.read_first_frame = lambda content: (next(decoded), decode(content))[1]
    began: dict[str, float] = {}
    started = time.perf_counter()

    def tell(what: str, done: int, _: int) -> None:
        began.setdefault(what, time.perf_counter())
        print(what, done, flush=True)

    file = load_study(folder / "study.yaml", overrides)
    prepared = prepare_study(file, StorageFolder(storage), inspector(), tell)
    tell("writing rows", 0, 0)
    wanted = [*wanted_rows(file.spec), *final_rows(file.spec)]
    write_prepared(prepared.manifest, prepared.splits, prepared.files, DataFolder(storage), wanted)
    ended = time.perf_counter()
    ends = [*list(began.values())[1:], ended]
    found = {
        "seconds": ended - started,
        "stages": {name: end - begin for (name, begin), end in zip(began.items(), ends, strict=True)},
        "decoded": next(decoded),
        "own_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "trainer_mib": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024,
        "notes": prepared.manifest.notes,
    }
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    prepare(Path(sys.argv[1]), Path(sys.argv[1]) / sys.argv[2], sys.argv[3:])
