"""Rows are prepared once for a study: its final training uses what is kept, and nothing that is no longer right."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from datasets import load_from_disk
from PIL import Image

from hpsearch.bridge.protocol import Event
from hpsearch.data.prepared import DataFolder
from hpsearch.errors import StudyFileErrors
from hpsearch.folders import JobFolder
from hpsearch.jobs import InspectionConfig
from hpsearch.spec import load_study
from hpsearch.study.preparation import _prepared_from
from hpsearch.trial import Outcome
from tests.unit.opening_fixtures import Desk, inspecting
from tests.unit.test_final import FinalRun, training
from tests.unit.worker_fixtures import ScriptedTrainer, nobody, plays


class Searched(FinalRun):
    """The final run of a study that was opened on this machine, and searched on half of its train rows."""

    def __init__(self, desk: Desk, *overrides: str) -> None:
        super().__init__(desk)
        self.manifest = desk.open("budget.train_fraction=0.5", *overrides, start=plays(inspecting())).manifest
        self.pinned = f"data.manifest={self.manifest.sha256}"
        self.prepared = DataFolder(desk.storage.path).of(self.manifest.sha256)
        desk.told.clear()

    def inspects(self, *overrides: str) -> bool:
        """Trains. Whether a trainer looked at the rows before."""
        seen: list[InspectionConfig] = []

        def play(trainer: ScriptedTrainer, folder: JobFolder) -> Iterator[Event | None]:
            is_inspection = isinstance(folder.job(), InspectionConfig)
            yield from (inspecting(seen=seen) if is_inspection else training)(trainer, folder)

        assert self.train(plays(play), *overrides, restart=True).outcome is Outcome.COMPLETE
        return bool(seen)


@pytest.fixture
def searched(desk: Desk) -> Searched:
    return Searched(desk)


@pytest.mark.parametrize("is_pinned", [True, False], ids=["best.yaml", "the study file itself"])
def test_the_final_training_reads_and_inspects_nothing_again(searched: Searched, is_pinned: bool) -> None:
    no_matter = "training.learning_rate=1e-3", "data.feature_cache_gib=1"
    assert not searched.inspects(*[searched.pinned] * is_pinned, *no_matter)
    assert searched.desk.told == []
    _, manifest, config = searched.folder.load()
    assert manifest == searched.manifest
    assert load_from_disk(str(config.train_rows))["id"][:] == [row_id for row_id, _ in manifest.splits["train"]]
    assert not config.train_rows.with_name("test").exists()


def test_a_final_run_s_preparation_is_good_for_the_next_one(desk: Desk) -> None:
    run = Searched(desk)
    override = "data.split.seed=1"
    assert [run.inspects(override), run.inspects(override, "final.epochs=9")] == [True, False]


@pytest.mark.parametrize(
    "override",
    [
        "data.max_tokens=9",
        "data.system_prompt=Be brief.",
        "data.split.seed=1",
        "model.base=tiny:gemma3",
        "model.revision=v2",
        "data.held_out=held-out.json",
    ],
)
def test_what_decides_on_the_rows_is_prepared_again_where_it_differs(searched: Searched, override: str) -> None:
    assert searched.inspects(override)


def test_of_a_search_over_bases_the_winner_s_rows_are_the_search_s(desk: Desk) -> None:
    run = Searched(desk, "search.space.model.base=[tiny:qwen2, tiny:gemma3]")
    assert not run.inspects(run.pinned, "model.base=tiny:gemma3")
    assert run.inspects(), "its rows need only be short enough for one base"


def change_the_source(run: Searched) -> None:
    run.desk.write_rows([{"q": f"another question {number}", "a": str(number)} for number in range(20)])


def tear_the_preparation(run: Searched) -> None:
    (run.prepared / "preparation.json").write_text('{"prepared_fr')


def tear_the_manifest(run: Searched) -> None:
    (run.prepared / "manifest.json.gz").write_bytes(b"\x1f\x8b\x08")


def forget_the_manifest(run: Searched) -> None:
    (run.prepared / "manifest.json.gz").unlink()


@pytest.mark.parametrize("happens", [change_the_source, tear_the_preparation, tear_the_manifest, forget_the_manifest])
def test_what_is_no_longer_complete_is_prepared_again(searched: Searched, happens: Callable[[Searched], None]) -> None:
    happens(searched)
    assert searched.inspects()
    assert not searched.inspects(), "and then it is whole"


def test_prepared_rows_that_were_damaged_are_written_again(searched: Searched) -> None:
    (file,) = (searched.prepared / "train").glob("*.arrow")
    whole = file.read_bytes()
    file.write_bytes(whole.replace(b"question", b"qu3stion"))
    assert not searched.inspects(), "the manifest says which rows they are"
    assert any(told.startswith("reading rows") for told in searched.desk.told)
    (file,) = (searched.prepared / "train").glob("*.arrow")
    assert file.read_bytes() == whole


def test_with_the_search_s_manifest_at_hand_rows_are_read_but_not_inspected(searched: Searched) -> None:
    """As on another machine, or for a study from before preparations were kept."""
    shutil.rmtree(searched.prepared)
    searched.train(plays(training), searched.pinned, searched=searched.manifest)
    assert any(told.startswith("reading rows") for told in searched.desk.told)
    assert searched.folder.load()[1] == searched.manifest


def test_target_modules_are_checked_without_a_trainer(searched: Searched) -> None:
    with pytest.raises(StudyFileErrors, match=r"'q_prj'.*'q_proj'"):
        searched.train(nobody, "lora.target_modules=[q_prj]")


def test_the_held_out_rows_are_those_of_the_set(desk: Desk) -> None:
    held_out: Path = desk.folder / "held-out.json"
    run = Searched(desk, "data.held_out=held-out.json")
    assert not run.inspects("data.held_out=held-out.json")
    written = held_out.read_bytes()
    held_out.unlink()
    assert not run.inspects("data.held_out=held-out.json")
    assert held_out.read_bytes() == written
    held_out.unlink()
    desk.open("study=other", "data.held_out=held-out.json", "data.split.seed=7", start=plays(inspecting()))
    assert json.loads(held_out.read_bytes()) != json.loads(written)
    assert run.inspects("data.held_out=held-out.json")
    manifest = run.folder.load()[1]
    assert [list(key) for key in manifest.splits["test"]] == json.loads(held_out.read_bytes())["rows"]


def test_what_an_earlier_version_prepared_is_found(tmp_path: Path) -> None:
    """The checksum is what 3f308da wrote for this file, when there were fewer keys."""
    study = tmp_path / "study.yaml"
    columns = "{image: image, question: question, answer: answer}"
    model, data = '{base: "tiny:qwen2-vl"}', f'{{source: "sklearn:digits", columns: {columns}}}'
    study.write_text(f"study: s\ntask: vlm-sft\nmodel: {model}\ndata: {data}\n")
    before = "8936c4da497940f861b1fc79fc56c27d161cf12c01391e7cc1a96db11b6c2a26"
    assert _prepared_from(load_study(study)) == before
    assert _prepared_from(load_study(study, ["data.group_duplicates=true"])) != before


def test_patients_that_share_an_image_are_told(desk: Desk) -> None:
    for number in range(19):
        Image.new("L", (8, 8), number).save(desk.folder / f"{number}.png")
    (desk.folder / "19.png").write_bytes((desk.folder / "0.png").read_bytes())
    desk.write_rows([{"q": "Which?", "a": str(n), "i": f"{n}.png", "p": f"P{n}"} for n in range(20)])
    seen = ("task=vlm-sft", "model.base=tiny:gemma3", "data.columns.image=i", "data.columns.group=p")
    told = "2 groups (column p) share an image with another one: they stay together, and count as 1"
    assert desk.open(*seen, start=plays(inspecting())).manifest.notes == [told]
