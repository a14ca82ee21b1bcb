"""`tracking:` of a study file: off by default, free to change in a study, and refused if its library is missing."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from hpsearch.errors import StudyFileErrors
from hpsearch.spec import tracking
from hpsearch.store import specs
from tests.unit.opening_fixtures import Desk, inspecting
from tests.unit.worker_fixtures import plays


def test_nothing_is_followed_unless_the_file_says_so(desk: Desk) -> None:
    study = desk.open(start=plays(inspecting()))
    assert study.trial_config(7, {}).tracking is None


def test_a_trial_is_named_after_its_study_and_known_by_the_study_s_own_id(desk: Desk) -> None:
    study = desk.open("tracking=[mlflow, tensorboard]", start=plays(inspecting()))
    found = study.trial_config(7, {}).tracking
    assert found is not None
    assert (found.name, found.group, found.trackers) == ("demo/trial-0007", "demo", ["mlflow", "tensorboard"])
    assert found.id == f"{study.uid}-0007"
    assert found.tensorboard == desk.storage.path / "tensorboard" / study.uid / "trial-0007"


def test_trackers_may_change_in_the_middle_of_a_study(desk: Desk) -> None:
    first = desk.open(start=plays(inspecting()))
    again = desk.open("tracking=[tensorboard]")
    assert again.study_id == first.study_id
    config = again.trial_config(0, {})
    assert config.tracking is not None
    stored = desk.store.studies.find("demo")
    assert stored is not None
    assert stored.spec.tracking == ["tensorboard"]


def test_a_spec_of_before_trackers_is_read(desk: Desk) -> None:
    kept = json.loads(specs.to_text(desk.file().spec))
    del kept["spec"]["tracking"]
    assert specs.from_text(json.dumps(kept)).tracking == []


def test_an_unknown_tracker_is_a_mistake(desk: Desk) -> None:
    with pytest.raises(StudyFileErrors) as raised:
        desk.file("tracking=[mlflw]")
    assert "mlflow" in str(raised.value)


def test_a_missing_library_is_reported_with_the_command(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        tracking, "find_spec", lambda name: None if name == "mlflow" else importlib.util.find_spec(name)
    )
    key, _, message = desk.refusal("tracking=[tensorboard, mlflow]", start=plays(inspecting()))
    assert key == "tracking"
    assert "pip install 'hpsearch[mlflow]'" in message


def test_a_folder_that_a_tracker_left_here_is_no_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wandb").mkdir()
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    monkeypatch.delitem(__import__("sys").modules, "wandb", raising=False)
    assert tracking.missing_trackers(["wandb"]) == ["wandb"]


@pytest.mark.parametrize("verb", ["show", "run"])
def test_a_missing_library_is_told_before_anything_is_read(
    main: Callable[..., tuple[object, str, str]], desk: Desk, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda _: None)
    (desk.folder / "rows.jsonl").unlink()
    desk.file()
    code, _, complained = main(verb, str(desk.folder / "study.yaml"), "--set", "tracking=[wandb]", "--set", "study=new")
    assert (code, "pip install 'hpsearch[wandb]'" in complained) == (2, True), complained
