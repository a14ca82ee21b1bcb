"""A cache of tensors on disk: files in folders by key, shared by workers, within a size limit.

A file gets its final name when it is complete, so reading needs no lock. If one is missing, broken or can't be written,
its tensor is computed again: a full disk fails no trial. Files aren't synced: after a power cut a file may be shorter
than its header says, which counts as missing.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from hpsearch.files import draft_of, share_weights
from hpsearch.trial import CacheConfig

Tensors = dict[str, torch.Tensor]

LEAVES_FREE_BYTES = 5 * 2**30
"""Disk space to leave free for checkpoints and results, which matter more than these files."""
_KEPT_SHARE = 0.9
"""Share of the limit to keep when files are deleted, so that not every new file needs another scan."""


class TensorCache:
    """The least recently read files are deleted first.

    Each process counts its writes since it last scanned all files, and scans again when they are a twentieth of the
    limit: with N processes the folder can exceed the limit by N twentieths.
    """

    def __init__(self, config: CacheConfig) -> None:
        self.folder = config.folder
        self._limit = config.limit_bytes
        self._unseen = self._limit
        """Bytes written since the last scan; the first write triggers one."""

    def read(self, place: str) -> Tensors | None:
        """The tensors of a file, memory-mapped and read on use. None: there is no complete file."""
        file = self.folder / place
        try:
            found = load_file(file)
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError, RuntimeError):  # RuntimeError: torch can't map it
            self._drop(file)
            return None
        with contextlib.suppress(OSError):  # another user's file, or a read-only disk
            os.utime(file)
        return found

    def write(self, place: str, tensors: Tensors) -> None:
        """Stores the tensors, unless there is no room. `place` is a name within a folder, such as "key/image"."""
        num_bytes = sum(tensor.nbytes for tensor in tensors.values())
        if num_bytes > self._limit:
            return
        file = self.folder / place
        draft = draft_of(file)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            if not self._has_room(num_bytes):
                return
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, draft)
            share_weights(draft)
            draft.rename(file)
            self._unseen += num_bytes
        except (OSError, SafetensorError) as error:
            print(f"{file} is not kept: {error}", flush=True)
            self._drop(draft)

    def _has_room(self, num_bytes: int) -> bool:
        if self._unseen + num_bytes > self._limit / 20:
            self._make_room(num_bytes)
            self._unseen = 0
        return shutil.disk_usage(self.folder).free - num_bytes >= LEAVES_FREE_BYTES

    def _make_room(self, num_bytes: int) -> None:
        """Drafts of killed processes count as files: they are never read, so they are deleted in turn."""
        found = []
        for file in self.folder.glob("*/*"):
            try:
                status = file.stat()
            except OSError:  # another process deleted it
                continue
            found.append((status.st_mtime_ns, status.st_size, file))
        total = sum(size for _, size, _ in found)
        if total + num_bytes <= self._limit:
            return
        for _, size, file in sorted(found):
            if total + num_bytes <= self._limit * _KEPT_SHARE:
                break
            self._drop(file)
            total -= size

    @staticmethod
    def _drop(file: Path) -> None:
        try:
            file.unlink(missing_ok=True)
        except OSError as error:
            print(f"{file} can't be removed: {error}", flush=True)
