"""What tests of exports share: a trained run with an adapter, a trainer that merges as the test says, its findings."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets

from hpsearch.bridge.protocol import Done, Event
from hpsearch.bridge.trainer_process import StartTrainer
from hpsearch.folders import JobFolder
from hpsearch.jobs import ChatFormat, ExportConfig, ExportResult
from hpsearch.results.export import Export, ExportOptions
from hpsearch.results.final import RunFolder
from hpsearch.search.view import StudyView
from tests.unit.answer_fixtures import trained
from tests.unit.opening_fixtures import Desk
from tests.unit.worker_fixtures import Play, ScriptedTrainer

CHAT = ChatFormat(
    template='{{ if .System }}<s "x">{{ .System }}\n{{ end }}{{ .Prompt }}{{ .Response }}', stop=["<end>", "<eos>"]
)
FOUND: dict[str, Any] = {
    "num_positions": 20,
    "largest_logit": 10.0,
    "difference": 0.01,
    "tolerance": 0.3,
    "share_lost": 0.001,
    "reads_alike": True,
    "quantized_agreement": 0.95,
    "chat": CHAT,
}


def run_with_adapter(desk: Desk, *overrides: str, name: str = "demo") -> RunFolder:
    folder = trained(desk, *overrides, name=name)
    folder.adapter.mkdir()
    (folder.adapter / "adapter_model.safetensors").write_bytes(b"weights of " + name.encode())
    (folder.adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "/home/me/b", "r": 8}))
    (folder.adapter / "README.md").write_text("peft's card")
    return folder


def merging(seen: list[tuple[ExportConfig, int]] | None = None, **changes: Any) -> Play:
    """Writes a model and finds what `FOUND` says, with `changes`; `seen`: each job and its number of check rows."""

    def play(_: ScriptedTrainer, folder: JobFolder) -> Iterator[Event | None]:
        config = folder.job()
        assert isinstance(config, ExportConfig)
        rows = datasets.load_from_disk(str(config.check_rows))
        assert all(Path(image).exists() for row in rows for image in row.get("images", []))
        if seen is not None:
            seen.append((config, len(rows)))
        (config.output / "model.safetensors").write_bytes(b"merged")
        folder.write_result(ExportResult(**{**FOUND, **changes}))
        yield Done(clean=True)

    return play


def exported(desk: Desk, folder: RunFolder, start: StartTrainer, study: StudyView | None = None, **options: Any) -> str:
    return Export(folder, ExportOptions(**options), desk.storage, start, desk.tell, study).run()


def files(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}
