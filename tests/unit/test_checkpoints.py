"""Folders that are whole: what a seal holds against kills, bad blocks, full disks and folders that change meanwhile."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpsearch import checkpoints
from hpsearch.checkpoints import MARKER, Torn, clear_drafts, copy_whole, drop, flaw, last_checkpoint, written_whole
from hpsearch.files import draft_of
from hpsearch.folders import JobFolder

Tear = Callable[[Path], object]


def written(target: Path, weights: bytes = b"weights") -> Path:
    with written_whole(target) as draft:
        (draft / "adapter.safetensors").write_bytes(weights)
        (draft / "inside").mkdir()
        (draft / "inside" / "optimizer.pt").write_bytes(b"momenta")
    return target


def flipped(folder: Path) -> None:
    file = folder / "inside" / "optimizer.pt"
    content = bytearray(file.read_bytes())
    content[3] ^= 1
    file.write_bytes(content)


def made_unreadable(folder: Path) -> None:
    """A folder in a file's place: as root, no mode keeps a test from reading."""
    (folder / MARKER).unlink()
    (folder / MARKER).mkdir()


TEARS: dict[str, tuple[Tear, str]] = {
    "no list": (lambda folder: (folder / MARKER).unlink(), "whole.json is missing"),
    "half a list": (lambda folder: os.truncate(folder / MARKER, 40), "whole.json is torn"),
    "an empty list": (lambda folder: os.truncate(folder / MARKER, 0), "whole.json is torn"),
    "no file": (lambda folder: (folder / "adapter.safetensors").unlink(), "adapter.safetensors is missing"),
    "half a file": (
        lambda folder: os.truncate(folder / "adapter.safetensors", 3),
        "adapter.safetensors has 3 bytes, not 7",
    ),
    "another bit": (flipped, "inside/optimizer.pt does not have the checksum that it was written with"),
    "unreadable": (made_unreadable, "whole.json can't be read: Is a directory"),
    "no folder": (shutil.rmtree, "whole.json is missing"),
}


def test_what_was_written_whole_is_whole(tmp_path: Path) -> None:
    folder = written(tmp_path / "checkpoint-3")
    assert flaw(folder) is None
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize(("tear", "said"), TEARS.values(), ids=TEARS.keys())
def test_what_is_torn_says_what_is_wrong(tmp_path: Path, tear: Tear, said: str) -> None:
    folder = written(tmp_path / "checkpoint-3")
    tear(folder)
    assert flaw(folder) == said


@pytest.mark.parametrize("tear", [tear for tear, _ in TEARS.values()], ids=TEARS.keys())
def test_what_is_torn_is_not_copied(tmp_path: Path, tear: Tear) -> None:
    folder = written(tmp_path / "a" / "checkpoint-3")
    tear(folder)
    with pytest.raises(Torn):
        copy_whole(folder, tmp_path / "b" / "checkpoint-3")
    assert not list((tmp_path / "b").glob("*")), "a draft is left"


def test_a_list_that_names_a_file_outside_is_no_list_of_this_folder(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("token")
    folder = written(tmp_path / "checkpoint-3")
    sealed = (folder / MARKER).read_text()
    (folder / MARKER).write_text(sealed.replace("adapter.safetensors", "../secret"))
    assert flaw(folder) == "../secret is missing"
    with pytest.raises(Torn):
        copy_whole(folder, tmp_path / "copy" / "checkpoint-3")


def test_a_copy_is_whole_and_leaves_the_original(tmp_path: Path) -> None:
    folder = written(tmp_path / "a" / "checkpoint-3")
    before = {path: path.stat().st_mtime_ns for path in (folder.parent, *folder.parent.rglob("*"))}
    copy_whole(folder, tmp_path / "b" / "checkpoint-3")
    assert flaw(tmp_path / "b" / "checkpoint-3") is None
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_a_folder_that_vanishes_while_it_is_copied_is_torn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An older trainer that was paused continues, and deletes what is no longer among its last two."""
    folder = written(tmp_path / "a" / "checkpoint-3")
    facts = checkpoints._facts

    def and_vanishes(file: Path) -> Any:
        if folder.exists():
            shutil.rmtree(folder)
        return facts(file)

    monkeypatch.setattr(checkpoints, "_facts", and_vanishes)
    with pytest.raises(Torn, match=r"^optimizer.pt can't be read: No such file or directory$"):
        copy_whole(folder, tmp_path / "b" / "checkpoint-3")
    assert list((tmp_path / "b").iterdir()) == []


def test_a_disk_that_is_full_is_no_torn_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = written(tmp_path / "a" / "checkpoint-3")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device"):
        copy_whole(folder, tmp_path / "b" / "checkpoint-3")
    assert list((tmp_path / "b").iterdir()) == [], "half a copy takes space that others need"


def test_everything_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    fsync, rename = os.fsync, os.rename

    def synced(descriptor: int) -> None:
        done.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    def renamed(source: Path, target: Path) -> None:
        done.append("renamed")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "rename", renamed)
    folder = written(tmp_path / "checkpoint-3")
    assert done.index("renamed") == len(done) - 2
    assert {"adapter.safetensors", "optimizer.pt", "inside", MARKER} < set(done[:-2])
    assert done[-3].startswith(f".{folder.name}."), "the names in it"
    assert done[-1] == tmp_path.name, "its own name"


def test_a_torn_one_of_the_same_name_gives_way(tmp_path: Path) -> None:
    folder = written(tmp_path / "checkpoint-3")
    flipped(folder)
    written(folder, b"others")
    assert flaw(folder) is None
    assert list(tmp_path.iterdir()) == [folder]


def test_what_is_dropped_is_gone_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill while its files are removed leaves no checkpoint with half of them."""
    folder = written(tmp_path / "checkpoint-3")
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", lambda *_, **__: None)
        drop(folder)
    assert not folder.exists()
    assert len(list(tmp_path.iterdir())) == 1
    clear_drafts(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_only_drafts_are_cleared(tmp_path: Path) -> None:
    """A person may keep the folder of a final run in a repository."""
    (tmp_path / ".git").mkdir()
    draft_of(tmp_path / "adapter").mkdir()
    clear_drafts(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".git"]


def test_the_last_checkpoint_is_the_newest_whole_one(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path)
    assert last_checkpoint(folder) is None
    older, newest = (written(folder.checkpoints / f"checkpoint-{step}") for step in (9, 10))
    (folder.checkpoints / "checkpoint-50").mkdir()
    (folder.checkpoints / "checkpoint-of-somebody").mkdir()
    assert last_checkpoint(folder) == newest
    flipped(newest)
    assert last_checkpoint(folder) == older


def test_the_last_checkpoint_is_the_last_stages(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path)
    first = written(folder.stage(0, 3).path / "checkpoint-6")
    assert last_checkpoint(folder) == first
    second = written(folder.stage(1, 3).path / "checkpoint-2")
    assert last_checkpoint(folder) == second
