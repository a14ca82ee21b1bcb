"""Files that the dashboard shows with a study or one of its trials: Optuna's artifacts.

`optuna.artifacts.upload_artifact` gives every file a new name, and can't give one to a trial that has ended: the
storage takes no attributes for it any more (5.0.0, artifacts/_upload.py). optuna-dashboard also looks for a trial's
artifacts in the study's attributes (0.21.0, artifact/_backend.py, `list_trial_artifacts`), so they are listed there,
under a name that is the same at every call: nothing is attached twice.
"""

from __future__ import annotations

import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_OID, uuid5

from optuna.artifacts import ArtifactMeta, FileSystemArtifactStore
from optuna.storages import RDBStorage

from hpsearch.store import StoredStudy

_STATES = "hpsearch:pictures"
"""The attribute that records the state from which each of the study's own files was drawn."""


class Attachments:
    """For one study. Use inside of `Store.reaching`."""

    def __init__(self, optuna: RDBStorage, study: StoredStudy, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._optuna = optuna
        self._study = study
        self._folder = folder
        self._files = FileSystemArtifactStore(folder)
        self._attributes: dict[str, Any] = optuna.get_study_system_attrs(study.study_id)

    def is_there(self, file: str, trial: int) -> bool:
        """Whether the trial has the file, or someone deleted it in the dashboard."""
        key = self._key(file, trial)
        if key not in self._attributes:
            return False
        return json.loads(self._attributes[key]) is None or (self._folder / self._id(file, trial)).exists()

    def is_current(self, file: str, state: str) -> bool:
        """Whether the study has the file, drawn from this state."""
        states = self._attributes.get(_STATES, {})
        return states.get(file) == state and (self._folder / self._id(file)).exists()

    def attach(self, file: str, content: bytes, state: str) -> None:
        """Attaches the file to the study, replacing an earlier one of this name."""
        self._attach(file, content, None)
        self._set(_STATES, self._attributes.get(_STATES, {}) | {file: state})

    def attach_to_trial(self, trial: int, file: str, content: bytes) -> None:
        self._attach(file, content, trial)

    def _attach(self, file: str, content: bytes, trial: int | None) -> None:
        meta = ArtifactMeta(self._id(file, trial), file, "image/png", None)
        self._files.write(meta.artifact_id, io.BytesIO(content))
        self._set(self._key(file, trial), json.dumps(asdict(meta)))

    def _set(self, key: str, value: Any) -> None:
        self._optuna.set_study_system_attr(self._study.study_id, key, value)
        self._attributes[key] = value

    def _id(self, file: str, trial: int | None = None) -> str:
        """Includes the time of the study's creation: a deleted study may have had the same id."""
        return str(uuid5(NAMESPACE_OID, f"{self._study.study_id} {self._study.created_at} {trial} {file}"))

    def _key(self, file: str, trial: int | None) -> str:
        if trial is None:
            return f"artifacts:{self._id(file)}"
        trial_id = self._optuna.get_trial_id_from_study_id_trial_number(self._study.study_id, trial)
        return f"dashboard:artifacts:{trial_id}:{self._id(file, trial)}"
