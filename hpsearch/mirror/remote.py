"""The bucket: files by their names below the storage URL. Every failure becomes an error in plain words."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from hpsearch.errors import HpsearchError, InputError, cut
from hpsearch.files import draft_of
from hpsearch.mirror.address import checked

T = TypeVar("T")

_OPTIONS: dict[str, dict[str, Any]] = {
    "s3": {"config_kwargs": {"connect_timeout": 10, "read_timeout": 60, "retries": {"max_attempts": 0}}},
    "file": {"auto_mkdir": True},
}
"""botocore waits 60 s to connect and tries five times, and s3fs five times on top (2026.9, core.py, `_error_wrapper`);
callers here retry by themselves.
"""


class RemoteUnreachable(HpsearchError):
    """A request to the bucket failed; it may succeed later."""


class Vanished(Exception):
    """A local file no longer exists: its trainer deleted it meanwhile."""


class Remote:
    """Files below `url`. Listings are not cached, as other machines write here too.

    Raises, from every method, RemoteUnreachable.
    """

    def __init__(self, url: str) -> None:
        import fsspec

        self.url = checked(url)
        scheme = self.url.partition(":")[0]
        options = {"use_listings_cache": False, "skip_instance_cache": True} | _OPTIONS.get(scheme, {})
        self._fs: Any = fsspec.filesystem(scheme, **options)
        self._root = str(self._fs._strip_protocol(self.url)).rstrip("/")

    def check(self) -> None:
        """Writes a small file, reads it and deletes it.

        Raises:
            InputError: there is no such bucket, no permission to write, or there are no credentials.
        """
        name = f".hpsearch-{uuid4().hex}"
        try:
            self._fs.pipe_file(self._at(name), b"hpsearch")
            try:
                found = self._fs.cat_file(self._at(name))
            finally:
                self._fs.rm_file(self._at(name))
        except Exception as error:
            raise self._told(error) from None
        if found != b"hpsearch":
            raise InputError(f"HPSEARCH_STORAGE: {self.url} returns other data than was written to it")

    def find(self, folder: str) -> dict[str, int]:
        """Name below `folder` → size in bytes, for every file; empty where there is no such folder.

        Names in a bucket are any text: those that are no path below `folder` are skipped.
        """
        path = self._at(folder)

        def found() -> dict[str, int]:
            self._fs.invalidate_cache()
            files = self._fs.find(path, detail=True)
            below = {name.removeprefix(f"{path}/"): int(facts["size"]) for name, facts in files.items()}
            return {name: size for name, size in below.items() if _is_plain(name)}

        return self._asked(found)

    def put(self, file: Path, name: str) -> None:
        """Raises Vanished."""
        with self._told_errors():
            try:
                self._fs.put_file(str(file), self._at(name))
            except OSError:
                if not file.exists():
                    raise Vanished(str(file)) from None
                raise

    def write(self, name: str, text: str) -> None:
        with self._told_errors():
            self._fs.pipe_file(self._at(name), text.encode())

    def read(self, name: str) -> str | None:
        """None where there is no such file."""
        with self._told_errors(), suppress(FileNotFoundError):
            return bytes(self._fs.cat_file(self._at(name))).decode(errors="replace")
        return None

    def get(self, name: str, file: Path) -> None:
        """Writes `file` atomically. A file that the bucket lacks counts as unreachable: it was listed a moment ago."""
        draft = draft_of(file)
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._asked(lambda: self._fs.get_file(self._at(name), str(draft)))
            draft.replace(file)
        finally:
            draft.unlink(missing_ok=True)

    def delete(self, name: str) -> None:
        """Deletes a file; does nothing if it is gone."""
        with self._told_errors(), suppress(FileNotFoundError):
            self._fs.rm_file(self._at(name))

    def delete_folder(self, folder: str) -> None:
        with self._told_errors(), suppress(FileNotFoundError):
            self._fs.rm(self._at(folder), recursive=True)

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _asked(self, question: Callable[[], T]) -> T:
        with self._told_errors():
            return question()

    @contextmanager
    def _told_errors(self) -> Iterator[None]:
        try:
            yield
        except Vanished:
            raise
        except Exception as error:  # errors of botocore, aiohttp and google share no base class
            raise RemoteUnreachable(f"{self.url}: {_words(error)}") from None

    def _told(self, error: Exception) -> HpsearchError:
        if "Credential" in type(error).__name__:
            message = f"HPSEARCH_STORAGE: {self.url} needs credentials, and none were found"
            return InputError(f"{message}: for S3, set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE")
        if isinstance(error, PermissionError) or getattr(error, "errno", None) in (errno.EACCES, errno.EPERM):
            return InputError(f"HPSEARCH_STORAGE: {self.url} can't be written by you: {_words(error)}")
        if isinstance(error, FileNotFoundError):
            return InputError(f"HPSEARCH_STORAGE: there is no such bucket: {self.url}; create it first")
        return RemoteUnreachable(f"HPSEARCH_STORAGE: {self.url} can't be used: {_words(error)}")


def _is_plain(name: str) -> bool:
    return not {"", ".", ".."} & set(name.split("/")) and "\0" not in name


def _words(error: Exception) -> str:
    return cut(f"{error}".strip() or type(error).__name__, 300)
