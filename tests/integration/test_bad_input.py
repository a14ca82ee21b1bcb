"""Mistakes that only a real trainer can find: each is reported with its line and what to write; nothing is lost."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from optuna.trial import FrozenTrial
from PIL import Image

from hpsearch.bridge.trainer_process import Borrowed
from hpsearch.cli import main
from hpsearch.store import Store
from hpsearch.store.engine import parse_url
from tests.integration.conftest import Driver
from tests.unit.worker_fixtures import Demo, new_demo, plays, steadily

pytestmark = pytest.mark.slow

FILE = """\
study: wrong
task: {task}
model:
  base: {base}
data:
  source: rows.jsonl
  columns: {{{image}question: question, answer: answer}}
lora:
  target_modules: {modules}
search:
  trials: 2
  space:
    training.learning_rate: {{low: 1e-4, high: 1e-2, log: true}}
"""
RIGHT = {"task": "text-sft", "base": "tiny:qwen2", "image": "", "modules": "all-linear"}
WHAT_A_BASE_IS = "name a local folder, a hub name such as Qwen/Qwen2.5-0.5B, or one of tiny:qwen2, tiny:gemma3"


@dataclass(frozen=True)
class Desk:
    """A folder with rows, and a store in which the study `demo` has been searched."""

    folder: Path
    demo: Demo
    trials: list[FrozenTrial]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    folder = tmp_path_factory.mktemp("desk")
    Image.new("RGB", (28, 28)).save(folder / "image.png")
    rows = [{"image": "image.png", "question": f"{i} + 1?", "answer": str(i + 1)} for i in range(20)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "storage").mkdir()
    with Store(parse_url(f"sqlite:///{folder / 'storage' / 'hpsearch.db'}", from_argv=False)) as store:
        demo = new_demo(store, folder)
        demo.run(plays(steadily(3.0, 2.0, 1.0)))
        yield Desk(folder, demo, demo.trials)


@pytest.fixture
def complaint(
    desk: Desk, driver: Driver, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """What `hpsearch run` says to stderr about a file; the exit code is 2, and the store is as it was."""
    for name in ("HPSEARCH_STORE", "HPSEARCH_STORAGE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(desk.folder)
    monkeypatch.setattr("hpsearch.bridge.trainer_process.TrainerProcess", lambda *_: Borrowed(driver.process))
    monkeypatch.setattr(sys, "argv", ["hpsearch", "run", "wrong.yaml"])

    def complain(*, asks_trainer: bool = True, **wrong: str) -> str:
        Path("wrong.yaml").write_text(FILE.format(**RIGHT | wrong))
        with pytest.raises(SystemExit) as exited:
            main()
        said, complained = capfd.readouterr()
        assert exited.value.code == 2, complained
        assert ("starting the trainer" in said) == asks_trainer
        assert "Traceback" not in said + complained
        assert [study.name for study in desk.demo.store.studies.all()] == ["demo"]
        assert desk.demo.trials == desk.trials
        assert [path.name[:5] for path in Path("storage/trials").iterdir()] == ["demo-"], "another study's trials began"
        return complained

    return complain


@pytest.mark.parametrize("base", ["./no/such/folder", "/no/such/folder"])
def test_a_folder_that_is_not_there_is_reported_before_a_trainer_starts(
    complaint: Callable[..., str], base: str
) -> None:
    first, second = complaint(asks_trainer=False, base=base).splitlines()
    assert first == "hpsearch: wrong.yaml: 1 mistake"
    assert second.startswith(f"  line 4: model.base: {base!r}: there is no folder /")


def test_a_base_that_is_not_there_is_reported_with_what_a_base_can_be(complaint: Callable[..., str]) -> None:
    first, second = complaint(base="Qwen/Qwen2.5-0.5B").splitlines()
    assert first == "hpsearch: wrong.yaml: 1 mistake"
    assert second.startswith("  line 4: model.base: 'Qwen/Qwen2.5-0.5B' is not downloaded, and HF_HUB_OFFLINE is set")
    assert WHAT_A_BASE_IS in second


def test_a_target_module_that_the_base_lacks_is_reported_with_those_that_it_has(complaint: Callable[..., str]) -> None:
    assert complaint(modules="[q_proj, q_prj]") == (
        "hpsearch: wrong.yaml: 1 mistake\n"
        "  line 9: lora.target_modules: tiny:qwen2 has no linear layer 'q_prj'; did you mean 'q_proj'? "
        "(it has down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj)\n"
    )


def test_a_base_that_takes_no_images_is_a_mistake_of_the_file(complaint: Callable[..., str]) -> None:
    first, second = complaint(task="vlm-sft", image="image: image, ").splitlines()
    assert first == "hpsearch: wrong.yaml: 1 mistake"
    assert second.startswith("  line 4: model.base: 'tiny:qwen2'")
