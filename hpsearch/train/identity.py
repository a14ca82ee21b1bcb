"""The identity of a base's weights, found without reading them: it names everything that is kept on disk for a base."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import try_to_load_from_cache


def identity_of(location: str, revision: str | None) -> str | None:
    """A hub base's commit; a folder's file names, sizes and times. None: unknown.

    The commit is read from the path of the hub's cache, where the base must be already: since 5.24 transformers'
    configs no longer contain it (configuration_utils.py drops `_commit_hash`).
    """
    if Path(location).is_dir():
        files = sorted(file for file in Path(location).rglob("*") if file.is_file())
        facts = [(str(file.relative_to(location)), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        return str(facts)
    config = try_to_load_from_cache(location, "config.json", revision=revision)
    return Path(config).parent.name if isinstance(config, str) else None
