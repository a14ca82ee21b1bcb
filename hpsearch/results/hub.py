"""Pushing to the Hugging Face hub: the adapter with its card, or the merged model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from hpsearch.errors import HpsearchError, InputError
from hpsearch.files import read_json, write_text
from hpsearch.results.card import without_folders
from hpsearch.results.export_folder import CARD, RECORD
from hpsearch.results.final import RunFolder
from hpsearch.results.merge import copy_head

if TYPE_CHECKING:
    from huggingface_hub import HfApi


def check_repo(repo: str | None, *, force: bool) -> str:
    """The repository's full name; checked before any work is done for it.

    Raises:
        InputError: there is no token or no name, or the repository exists and `force` was not given.
        HpsearchError: the hub refused, or could not be reached.
    """
    if not repo:
        raise InputError("--repo is missing: the name of the repository on the hub, such as OWNER/NAME")
    api = _api()
    with _in_words(repo):
        name = repo if "/" in repo else f"{api.whoami()['name']}/{repo}"
        is_there = api.repo_exists(name)
    if is_there and not force:
        raise InputError(f"{name} is on the hub already: overwrite it with --force, or choose another --repo")
    return name


def push(repo: str, files: Path, message: str, *, private: bool, force: bool) -> str:
    """Uploads a folder in one commit, and returns the repository's address.

    Raises:
        InputError: there is no token.
        HpsearchError: the hub refused, or could not be reached.
    """
    api = _api()
    with _in_words(repo):
        made = api.create_repo(repo, private=private or None, exist_ok=force)  # None: the owner's default
        api.upload_folder(repo_id=repo, folder_path=files, commit_message=message, ignore_patterns=[RECORD])
    return str(made)


def adapter_files(folder: RunFolder, card: str) -> Path:
    """The adapter as it is uploaded: with the study's card, and without paths of this machine."""
    file, _, config = folder.load()
    to = folder.exports / "adapter"
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(folder.adapter, to)
    content = read_json(to / "adapter_config.json") | {"base_model_name_or_path": without_folders(file.spec.model.base)}
    write_text(to / "adapter_config.json", json.dumps(content, indent=2))
    write_text(to / CARD, card)
    copy_head(folder, config.answers, to)
    return to


def _api() -> HfApi:
    import huggingface_hub

    token = huggingface_hub.get_token()
    if token is None:
        raise InputError("there is no token for the hub: hf auth login, or HF_TOKEN in the environment")
    return huggingface_hub.HfApi(token=token)


@contextmanager
def _in_words(repo: str) -> Iterator[None]:
    from huggingface_hub.errors import HFValidationError

    try:
        yield
    except HFValidationError as error:
        raise InputError(f"--repo: {error}") from None
    except Exception as error:
        # the hub's client raises errors of its own, of httpx and of the system
        words = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise HpsearchError(f"the hub refused {repo}: {words}") from None
