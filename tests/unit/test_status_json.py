"""`hpsearch status --json`: one document that programs can rely on."""

from __future__ import annotations

import io
import json
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hpsearch.cli import app as app_module
from hpsearch.cli import status as verb
from hpsearch.search.view import StudyView
from hpsearch.trial import GIB, Outcome
from hpsearch.watch.document import OUTCOMES, StatusDocument
from hpsearch.watch.status import study_status
from tests.conftest import REPOSITORY
from tests.unit.view_fixtures import GPU_WORKER, finished
from tests.unit.worker_fixtures import Demo, ends, plays, steadily

Run = Callable[[str], tuple[object, str, str]]


@pytest.fixture
def run(demo: Demo, workplace: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Exit code, stdout and stderr of `hpsearch` on the demo's store."""
    monkeypatch.setenv("HPSEARCH_STORE", demo.store.url.render_as_string())

    def run(command: str) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["hpsearch", *command.split()])
        with pytest.raises(SystemExit) as exited:
            app_module.main()
        return (exited.value.code, *capfd.readouterr())

    assert Path.cwd() == workplace
    return run


def refuse(word: str) -> None:
    raise AssertionError(f"{word} is not JSON")


def strictly(text: str) -> Any:
    return json.loads(text, parse_constant=refuse)


def told(view: StudyView, **how: Any) -> Any:
    document = StatusDocument(read_at_seconds=1.0, store="sqlite:///x", studies=[study_status(view, **how)])
    return strictly(document.to_json())["studies"][0]


def test_a_study_is_reported_whole(view: StudyView) -> None:
    study = told(view)
    assert (study["name"], study["state"], study["paused"], study["limit"]) == ("demo", "working", None, None)
    assert (study["slots_wanted"], study["slots_finished"], study["slots_leased"]) == (8, 6, 1)
    assert study["trials_by_outcome"] == {
        "complete": 2, "pruned": 1, "diverged": 1, "out of memory": 1, "failed": 1, "running": 1, "waiting": 1,
    }  # fmt: skip
    assert study["objectives"] == [{"name": "loss", "direction": "minimize"}]
    assert study["trials"] is None, "they may be thousands: only of a study that is named"
    best = study["best"]
    assert (best["number"], best["value"], best["values"]) == (0, 0.5, {"loss": 0.5})
    assert best["params"] == {"training.learning_rate": 1e-4, "lora.r": 16}
    assert best["reports"][-1] == {"report": 3, "value": 0.5}
    assert (best["peak_device_bytes"], best["ledger_closes"], best["attempts"]) == (round(2.5 * GIB), True, 1)


def test_a_worker_is_told_with_what_it_does(view: StudyView) -> None:
    (worker,) = told(view)["workers"]
    assert (worker["name"], worker["host"], worker["process"]) == (GPU_WORKER, "gpu-box", 4242)
    assert (worker["device"], worker["doing"], worker["trial"]) == ("NVIDIA H200", "training", 6)
    assert (worker["done"], worker["total"], worker["device_bytes"]) == (3, 12, 3 * GIB)
    assert worker["started_at_seconds"] <= worker["beat_at_seconds"]
    assert worker["is_live"]


def test_workers_that_left_are_reported_only_where_their_device_is_set_aside(view: StudyView) -> None:
    left = [replace(worker, gone=True) for worker in view.workers]
    assert told(replace(view, workers=left))["workers"] == []
    (worker,) = told(replace(view, workers=[replace(left[-1], aside="no space left")]))["workers"]
    assert (worker["aside"], worker["is_live"]) == ("no space left", False)


def test_nan_and_infinity_are_null(view: StudyView) -> None:
    trials = told(view, with_trials=True)["trials"]
    assert [trial["outcome"] for trial in trials][:3] == ["complete", "pruned", "diverged"]
    assert trials[2]["value"] is None
    assert trials[2]["reports"] == [{"report": 1, "value": 2.0}, {"report": 2, "value": None}]
    odd = replace(view.trials[0], params={"x": math.inf}, values=(math.nan,), value=-math.inf, seconds=math.nan)
    (trial,) = told(replace(view, trials=[odd]), with_trials=True)["trials"]
    assert (trial["params"], trial["values"], trial["value"], trial["seconds"]) == (
        {"x": None},
        {"loss": None},
        None,
        None,
    )


def test_attributes_that_are_somebody_elses_do_no_harm(view: StudyView) -> None:
    foreign = {"attempts": "three", "ledger.closes": [], "reason": {"why": 1}, "ledger.peak_device_gib": "much"}
    (trial,) = told(replace(view, trials=[replace(view.trials[0], facts=foreign)]), with_trials=True)["trials"]
    assert [trial[name] for name in ("attempts", "ledger_closes", "reason", "peak_device_bytes")] == [None] * 4


def test_a_choice_that_is_a_list_is_one(view: StudyView) -> None:
    params = {"lora.target_modules": '["q_proj", "v_proj"]', "x": "[not JSON"}
    (trial,) = told(replace(view, trials=[replace(view.trials[0], params=params)]), with_trials=True)["trials"]
    assert trial["params"] == {"lora.target_modules": ["q_proj", "v_proj"], "x": "[not JSON"}


def test_the_state_is_one_word(view: StudyView) -> None:
    assert told(finished(view))["state"] == "finished"
    paused = replace(view, study=replace(view.study, paused="a person said so"))
    assert (told(paused)["state"], told(paused)["paused"]) == ("paused", "a person said so")
    assert told(replace(view, workers=[]))["state"] == "idle"


def test_what_a_terminal_would_obey_is_escaped(view: StudyView) -> None:
    evil = replace(view.study, paused="\x1b[2J\x9b2J‮ é")
    document = StatusDocument(read_at_seconds=1.0, store="x", studies=[study_status(replace(view, study=evil))])
    text = document.to_json(indent=2)
    assert text.isascii()
    assert all(letter.isprintable() or letter == "\n" for letter in text)
    assert strictly(text)["studies"][0]["paused"] == evil.paused


def test_the_fields_are_these_and_each_is_explained() -> None:
    """A field that goes away or means something else needs a new version: programs of other people read it."""
    page = (REPOSITORY / "docs/how-to/watching.md").read_text()
    parts = {"StatusDocument": StatusDocument.model_json_schema()}
    parts |= parts["StatusDocument"].pop("$defs")
    fields = {name: set(part["properties"]) for name, part in parts.items()}
    assert {name: len(names) for name, names in fields.items()} == {
        "StatusDocument": 5, "StudyStatus": 19, "TrialStatus": 13, "WorkerStatus": 19, "JobStatus": 7,
        "ReportStatus": 2, "ObjectiveStatus": 2, "UsageStatus": 3, "UnreadableStatus": 2,
    }  # fmt: skip
    assert sorted(name for names in fields.values() for name in names if f"`{name}`" not in page) == []
    assert all(f"`{outcome}`" in page for outcome in OUTCOMES)


class TestTheVerb:
    def test_all_studies_without_their_trials(self, run: Run, demo: Demo) -> None:
        demo.worker(plays(steadily(0.9, 0.5))).step()
        code, said, complained = run("status --json")
        document = strictly(said)
        assert (code, complained, document["version"]) == (0, "", 1)
        assert [(study["name"], study["trials"]) for study in document["studies"]] == [("demo", None)]
        assert document["store"] == demo.store.name

    def test_one_study_with_its_trials(self, run: Run, demo: Demo) -> None:
        demo.worker(plays(ends(Outcome.DIVERGED, math.nan, reason="the loss became nan"))).step()
        (study,) = strictly(run("status demo --json")[1])["studies"]
        (trial,) = study["trials"]
        assert (trial["outcome"], trial["value"], trial["reason"]) == ("diverged", None, "the loss became nan")

    def test_a_look_is_a_line(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        looks: list[float] = []

        def sleep(seconds: float) -> None:
            looks.append(seconds)
            if len(looks) == 3:
                raise KeyboardInterrupt

        monkeypatch.setattr(verb, "sleep", sleep)
        code, said, _ = run("status --json --watch")
        assert code == 130
        assert [strictly(line)["studies"][0]["name"] for line in said.splitlines()] == ["demo"] * 3

    def test_a_pipe_gets_the_picture_again_when_it_has_changed(
        self, run: Run, demo: Demo, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """rich's Live prints nothing into a pipe until its end."""
        looks: list[str] = []
        shown: list[str] = []

        class Pipe(io.StringIO):
            def flush(self) -> None:
                shown.append(self.getvalue())

        def sleep(_: float) -> None:
            looks.append(shown[-1])
            if len(looks) == 2:
                demo.worker(plays(steadily(0.9, 0.5))).step()
            if len(looks) == 3:
                raise KeyboardInterrupt

        monkeypatch.setattr(verb, "sleep", sleep)
        monkeypatch.setattr(sys, "stdout", Pipe())
        assert run("status demo --watch")[0] == 130
        assert looks[0] == looks[1]
        assert "0/3" in looks[0]
        assert looks[2].startswith(f"{looks[1]}\n")
        assert "1/3" in looks[2]

    def test_a_store_that_is_not_there_has_no_studies(
        self, run: Run, workplace: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("HPSEARCH_STORE")
        monkeypatch.setenv("HPSEARCH_STORAGE", str(workplace / "storage"))
        code, said, complained = run("status --json")
        assert (code, complained, strictly(said)["studies"]) == (0, "", [])
        assert not (workplace / "storage").exists()

    @pytest.mark.parametrize(
        ("command", "code", "words"),
        [
            ("status dmeo --json", 2, "did you mean 'demo'?"),
            ("status --json --store sqlite:///nothing/x.db --watch", 2, "has no studies yet"),
            ("status --json --store postgresql://me:hunter2@host/db", 2, "a password on the command line"),
        ],
    )
    def test_a_mistake_has_its_exit_code_and_no_document(self, run: Run, command: str, code: int, words: str) -> None:
        ended, said, complained = run(command)
        assert (ended, said) == (code, "")
        assert words in complained
