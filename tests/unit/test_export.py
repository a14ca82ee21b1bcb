"""Exporting a final run: checked before it is kept, nothing overwritten, and the words for whatever is missing."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from hpsearch.cli import main
from hpsearch.errors import HpsearchError, InputError
from hpsearch.files import write_text
from hpsearch.jobs import ExportConfig
from hpsearch.results.export_folder import RECORD
from hpsearch.results.final import RunFolder
from tests.unit.answer_fixtures import CLASSES, SEEN, draw_rows, failing
from tests.unit.export_fixtures import exported, files, merging, run_with_adapter
from tests.unit.opening_fixtures import Desk
from tests.unit.worker_fixtures import nobody, plays


@pytest.fixture
def folder(desk: Desk) -> RunFolder:
    return run_with_adapter(desk)


def test_a_merged_model_is_checked_and_kept_with_its_card(desk: Desk, folder: RunFolder) -> None:
    seen: list[tuple[ExportConfig, int]] = []
    told = exported(desk, folder, plays(merging(seen)), to="merged")
    target = folder.exports / "merged-bfloat16"
    assert files(target) == {"model.safetensors", "README.md", RECORD}
    assert told.splitlines() == [
        f"merged: {target}",
        "Checked: at 20 answer tokens its logits differ from base and adapter by at most 0.01 (the largest is 10; up "
        "to 0.3 would pass). The 4-bit model would say the same token at 95% of them.",
    ]
    ((config, num_rows),) = seen
    assert (config.adapter, config.dtype, num_rows) == (folder.adapter, "bfloat16", 2)
    assert files(folder.exports) == {"merged-bfloat16"}


def test_it_may_go_elsewhere_and_in_another_precision(desk: Desk, folder: RunFolder) -> None:
    seen: list[tuple[ExportConfig, int]] = []
    target = desk.folder / "a" / "b"
    exported(desk, folder, plays(merging(seen)), to="merged", output=target, dtype="float16")
    assert "model.safetensors" in files(target)
    assert seen[0][0].dtype == "float16"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"difference": 0.4}, "logits differ from base and adapter by up to 0.4, more than 0.3; nothing was kept"),
        ({"difference": float("nan")}, "logits differ from base and adapter by up to nan"),
        ({"share_lost": 0.7}, "16 bits are too coarse for this adapter's changes: .* 70% of it"),
        ({"reads_alike": False}, "reads the check rows differently than the base's"),
    ],
)
def test_a_merged_model_that_is_another_one_is_not_kept(
    desk: Desk, folder: RunFolder, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(HpsearchError, match=words):
        exported(desk, folder, plays(merging(**changes)), to="merged")
    assert files(folder.exports) == {"merging"}


def test_a_failed_merge_leaves_what_was_there(desk: Desk, folder: RunFolder) -> None:
    exported(desk, folder, plays(merging()), to="merged")
    with pytest.raises(HpsearchError, match="OutOfMemoryError"):
        exported(desk, folder, plays(failing), to="merged", force=True)
    assert "model.safetensors" in files(folder.exports / "merged-bfloat16")
    assert len(files(folder.exports)) == 2


def test_what_is_merged_already_is_not_merged_again(desk: Desk, folder: RunFolder) -> None:
    exported(desk, folder, plays(merging()), to="merged")
    assert exported(desk, folder, nobody, to="merged").startswith("merged already: ")
    again = plays(merging(difference=0.02))
    assert "at most 0.02" in exported(desk, folder, again, to="merged", force=True)


def test_the_card_is_kept_up_to_date_unless_somebody_edited_it(desk: Desk, folder: RunFolder) -> None:
    exported(desk, folder, plays(merging()), to="merged")
    card = folder.exports / "merged-bfloat16" / "README.md"
    spec = folder.study.read_text()
    folder.study.write_text(f"description: made for birds\n{spec}")
    exported(desk, folder, nobody, to="merged")
    assert "made for birds" in card.read_text()
    write_text(card, "mine")
    exported(desk, folder, nobody, to="merged")
    assert card.read_text() == "mine"


def test_another_export_is_replaced_by_force_alone(desk: Desk, folder: RunFolder) -> None:
    other, target = run_with_adapter(desk, "training.seed=7", name="other"), desk.folder / "out"
    exported(desk, folder, plays(merging()), to="merged", output=target)
    with pytest.raises(
        InputError, match=r"holds another export \(merged, bfloat16, of run demo\): --force replaces it"
    ):
        exported(desk, other, nobody, to="merged", output=target)
    with pytest.raises(InputError, match="holds another export"):
        exported(desk, folder, nobody, to="merged", output=target, dtype="float16")
    exported(desk, other, plays(merging()), to="merged", output=target, force=True)
    assert json.loads((target / RECORD).read_text())["made"]["run"] == "other"


@pytest.mark.parametrize("force", [True, False])
def test_a_folder_of_somebody_else_is_left_alone(desk: Desk, folder: RunFolder, force: bool) -> None:
    (desk.folder / "thesis").mkdir()
    (desk.folder / "thesis" / "thesis.tex").touch()
    with pytest.raises(InputError, match="thesis holds something that is not an export: choose another folder with -o"):
        exported(desk, folder, nobody, to="merged", output=desk.folder / "thesis", force=force)
    assert files(desk.folder / "thesis") == {"thesis.tex"}


def test_a_place_that_can_not_be_written_is_reported(desk: Desk, folder: RunFolder) -> None:
    (desk.folder / "file").touch()
    with pytest.raises(InputError, match="can't be written: Not a directory"):
        exported(desk, folder, nobody, to="merged", output=desk.folder / "file" / "out")


def test_without_its_data_a_run_is_checked_on_a_made_up_row(desk: Desk, folder: RunFolder) -> None:
    (desk.folder / "rows.jsonl").unlink()
    config = folder.load()[2]
    config.validation_rows.rename(config.validation_rows.with_name("gone"))
    seen: list[tuple[ExportConfig, int]] = []
    exported(desk, folder, plays(merging(seen)), to="merged")
    assert seen[0][1] == 1
    assert any("the validation rows are not on this machine" in told for told in desk.told)


def test_without_its_images_a_run_is_checked_on_a_grey_one(desk: Desk) -> None:
    draw_rows(desk)
    folder = run_with_adapter(desk, *SEEN)
    shutil.rmtree(desk.folder / "images")
    seen: list[tuple[ExportConfig, int]] = []
    exported(desk, folder, plays(merging(seen)), to="merged")
    assert [num_rows for _, num_rows in seen] == [1]


def test_a_run_without_an_adapter_is_reported(desk: Desk, folder: RunFolder) -> None:
    (folder.adapter / "adapter_model.safetensors").unlink()
    with pytest.raises(InputError, match=r"has no adapter: .*adapter_model.safetensors is gone"):
        exported(desk, folder, nobody, to="merged")


def test_a_classifiers_head_lies_beside_the_merged_model_and_fits_no_gguf(desk: Desk) -> None:
    draw_rows(desk)
    folder = run_with_adapter(desk, *CLASSES, "head.hidden=64")
    (folder.adapter / "head.safetensors").write_bytes(b"head")
    told = exported(desk, folder, plays(merging(quantized_agreement=None)), to="merged")
    assert told.endswith("The classifier lies beside it: head.safetensors, with its classes in head.json.")
    target = folder.exports / "merged-bfloat16"
    assert (target / "head.safetensors").read_bytes() == b"head"
    assert json.loads((target / "head.json").read_text()) == {"classes": ["cat", "dog"], "hidden": 64, "dropout": 0.1}
    with pytest.raises(InputError, match="a GGUF can't hold a classification head: export with --to merged"):
        exported(desk, folder, nobody, to="ollama")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"to": "merged", "repo": "me/x"}, "--repo does not go together with --to merged"),
        ({"to": "merged", "llama_cpp": Path()}, "--llama-cpp does not go together with --to merged"),
        ({"to": "gguf", "private": True}, "--private does not go together with --to gguf"),
        ({"to": "hub", "output": Path("x")}, "-o does not go together with --to hub"),
        ({"to": "hub", "python": Path("x")}, "--python does not go together with --to hub"),
        ({"to": "gguf", "merged": True}, "--merged does not go together with --to gguf"),
    ],
)
def test_options_that_do_not_go_together(desk: Desk, folder: RunFolder, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        exported(desk, folder, nobody, **options)


def test_the_command_exports_and_makes_no_store(
    desk: Desk, folder: RunFolder, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(desk.folder)
    monkeypatch.delenv("HPSEARCH_STORE", raising=False)
    monkeypatch.setenv("HPSEARCH_STORAGE", str(desk.storage.path))
    monkeypatch.setattr("hpsearch.bridge.trainer_process.TrainerProcess", lambda *_: plays(merging())())
    monkeypatch.setattr(sys, "argv", ["hpsearch", "export", str(folder.path), "--to", "merged"])
    with pytest.raises(SystemExit) as exited:
        main()
    assert exited.value.code == 0
    assert f"merged: {folder.exports / 'merged-bfloat16'}" in capfd.readouterr().out
    assert not desk.storage.database.exists()
