"""Launching workers: sites and options, what is refused before anything starts, and what becomes of the jobs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpsearch.cli import app as app_module
from hpsearch.cli import launch as launch_verb
from hpsearch.errors import HpsearchError, InputError, StoreUnreachable
from hpsearch.launch import sites
from hpsearch.launch.engines import ENGINES
from hpsearch.launch.launcher import JobState, Order
from hpsearch.launch.roll import Roll, call_roll, dismiss
from hpsearch.launch.sites import choose_site
from hpsearch.mirror.mirror import Mirror
from hpsearch.mirror.remote import RemoteUnreachable
from hpsearch.store import LaunchedJob
from hpsearch.store.launches import Launches
from tests.unit.launch_fixtures import Far
from tests.unit.opening_fixtures import Desk, inspecting
from tests.unit.worker_fixtures import Demo, Play, plays, steadily


@pytest.fixture
def far(monkeypatch: pytest.MonkeyPatch) -> type[Far]:
    monkeypatch.setitem(ENGINES, "far", Far)  # type: ignore[arg-type]
    for name, value in {"started": [], "ended": [], "refusal": "", "state": JobState.PENDING}.items():
        monkeypatch.setattr(Far, name, value)
    return Far


LAUNCH_YAML = """\
lab:
  on: far
  workers: 8
  partition: gpu
broken: {on: far, partiton: gpu, cpus: many}
nowhere: {workers: 2}
several: {on: [far, local]}
"yes": {on: far, workers: yes}
"""


@pytest.mark.usefixtures("far")
def test_a_profile_says_where_and_the_command_line_counts_first(workplace: Path) -> None:
    (workplace / "launch.yaml").write_text(LAUNCH_YAML)
    site = choose_site("lab", {"on": None, "workers": None, "cpus": None})
    assert (site.engine, site.num_workers, site.options) == ("far", 8, Far.FarOptions(partition="gpu"))
    site = choose_site("lab", {"workers": 2, "partition": "big", "cpus": 4})
    assert (site.num_workers, site.options) == (2, Far.FarOptions(partition="big", cpus=4))
    assert choose_site(None, {"on": "local"}).num_workers is None


@pytest.mark.usefixtures("far")
@pytest.mark.parametrize(
    ("profile", "given", "words"),
    [
        (None, {}, "--on: which engine? known: local"),
        (None, {"on": "slrum"}, "--on: there is no engine 'slrum'"),
        (None, {"on": "local", "partition": "gpu"}, "partition: local has no such option; it has none"),
        ("lba", {}, "launch.yaml has no 'lba'; did you mean 'lab'?"),
        ("nowhere", {}, "--on: which engine?"),
        ("broken", {}, "partiton: far has no such option; did you mean 'partition'?"),
        ("broken", {}, "cpus: "),
        ("lab", {"workers": 0}, "workers: must be a whole number, at least 1"),
        ("several", {}, "--on: there is no engine \"['far', 'local']\""),
        ("yes", {}, "workers: must be a whole number, at least 1, not True"),
    ],
)
def test_what_is_no_site_is_reported_in_words(
    workplace: Path, profile: str | None, given: dict[str, Any], words: str
) -> None:
    (workplace / "launch.yaml").write_text(LAUNCH_YAML)
    with pytest.raises(InputError) as raised:
        choose_site(profile, given)
    assert words in str(raised.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "there is no launch.yaml in this folder; as in:\nlab:"),
        ("a: [", "launch.yaml: line 1"),
        ("- a", "launch.yaml: expected the name of each site"),
        ("lab: 3", "launch.yaml: expected the name of each site"),
    ],
)
def test_a_file_of_sites_that_can_t_be_read_has_words(workplace: Path, text: str | None, words: str) -> None:
    if text is not None:
        (workplace / "launch.yaml").write_text(text)
    with pytest.raises(InputError) as raised:
        choose_site("lab", {})
    assert words in str(raised.value)


Ended = tuple[object, str, str]
Run = Callable[..., Ended]


@pytest.fixture
def launch(
    far: type[Far], desk: Desk, workplace: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Run:
    """`hpsearch launch study.yaml` on an engine elsewhere, with the desk's store as a server's."""
    assert (far.started, workplace) == ([], desk.folder)
    monkeypatch.setenv("HPSEARCH_STORE", desk.store.url.render_as_string())
    monkeypatch.setattr(launch_verb, "_refuse_unreachable", lambda *_: None)

    def run(*words: str, play: Play | None = None, verb: str = "launch") -> Ended:
        monkeypatch.setattr(launch_verb, "inspector", lambda: plays(play or inspecting()))
        what = [str(desk.file().path), "--on", "far"] if verb == "launch" else []
        monkeypatch.setattr(sys, "argv", ["hpsearch", verb, *what, *words])
        with pytest.raises(SystemExit) as exited:
            app_module.main()
        return (exited.value.code, *capfd.readouterr())

    return run


def test_a_second_launch_says_who_is_there_and_its_commands_name_the_store(launch: Run, desk: Desk) -> None:
    assert "already started" not in launch("--workers", "3", "--set", "search.trials=2")[1]
    address = str(desk.store.url)
    said = launch("--set", "search.trials=2", "--store", address)[1]
    assert "3 jobs are already started for demo; these are added to them" in said
    assert f"  hpsearch stop demo --store {address}     all" in said, "as it stands it finds the study"


def test_workers_are_launched_and_written_down(launch: Run, desk: Desk, far: type[Far]) -> None:
    code, said, complained = launch("--workers", "3", "--partition", "gpu", "--set", "search.trials=2")
    assert (code, complained) == (0, "")
    assert "3 workers for demo on far: 7_0, 7_1, 7_2" in said
    (order,) = far.started
    assert order.arguments[:3] == [str(desk.folder / "study.yaml"), "--set", "search.trials=2"]
    assert order.environment["HPSEARCH_STORAGE"] == str(desk.folder / "storage")
    stored = desk.store.studies.find("demo")
    assert stored is not None
    assert stored.trials == 2
    (kept,) = desk.store.launches.of(stored.study_id)
    assert (kept.engine, kept.options["partition"]) == ("far", "gpu")
    code, said, _ = launch("demo", verb="status")
    assert "7_2  far  pending  node3  Resources" in said
    code, said, _ = launch("demo", verb="stop")
    assert "3 jobs are ended" in said
    assert far.ended == [(["7_0", "7_1", "7_2"], False)]
    code, _, complained = launch("demo", "--yes", verb="delete")
    assert (code, "7_0" in complained, "hpsearch stop demo ends them" in complained) == (2, True, True)
    far.state = JobState.GONE
    code, said, _ = launch("demo", "--yes", verb="delete")
    assert code == 0
    assert desk.store.launches.of(stored.study_id) == []


def test_workers_do_not_know_the_worker_that_they_are_launched_from(
    launch: Run, far: type[Far], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Engines pass this process's environment on: they would take its job for theirs, and end with its keeper."""
    inherited = ("HPSEARCH_JOB", "HPSEARCH_STARTED_BY_RUN")
    seen: list[str] = []
    start = far.start

    def spy(self: Far, order: Order) -> list[LaunchedJob]:
        seen.extend(name for name in inherited if name in os.environ)
        return start(self, order)

    for name in inherited:
        monkeypatch.setenv(name, "4711")
    monkeypatch.setattr(far, "start", spy)
    assert launch()[0] == 0
    assert (len(far.started), seen) == (1, [])


@pytest.mark.parametrize("is_here", [True, False])
def test_workers_of_one_machine_share_its_cores(
    is_here: bool, launch: Run, far: type[Far], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(far, "reaches_other_machines", not is_here)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert launch("--workers", "2")[0] == 0
    assert far.started[0].environment.get("OMP_NUM_THREADS") == ("4" if is_here else None)


def test_a_dry_run_shows_and_starts_nothing(launch: Run, desk: Desk, far: type[Far]) -> None:
    code, said, _ = launch("--dry-run")
    assert (code, "1 times" in said, far.started) == (0, True, [])
    assert desk.store.studies.all() == []


def test_what_the_engine_refuses_starts_nothing(launch: Run, desk: Desk, far: type[Far]) -> None:
    far.refusal = "there is no partition 'gpu'"
    assert launch()[::2] == (1, "hpsearch: there is no partition 'gpu'\n")
    assert (far.started, desk.store.studies.all()) == ([], [])


def test_jobs_that_can_t_be_written_down_are_ended_again(
    launch: Run, far: type[Far], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise StoreUnreachable("the store can't be reached")

    monkeypatch.setattr(Launches, "add", fail)
    code, _, complained = launch("--workers", "2")
    assert (code, complained) == (1, "hpsearch: the store can't be reached\n")
    assert far.ended == [(["7_0", "7_1"], True)]


def test_a_paused_and_a_finished_study_need_no_workers(launch: Run, desk: Desk, far: type[Far]) -> None:
    desk.open(start=plays(inspecting()))
    stored = desk.store.studies.find("demo")
    assert stored is not None
    desk.store.orders.pause(stored.study_id, "all fail alike")
    assert launch()[2].startswith("hpsearch: study demo is paused: all fail alike\nhpsearch resume demo")
    assert far.started == []


def test_a_study_is_deleted_after_its_copy_in_the_bucket(
    launch: Run, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody could delete the copy any more once the study, whose id is its name there, is gone."""

    def away(*_: Any) -> None:
        raise RemoteUnreachable("s3://lab: Connection refused")

    desk.open(start=plays(inspecting()))
    with monkeypatch.context() as patch:
        patch.setattr(Mirror, "delete", away)
        assert launch("demo", "--yes", verb="delete")[::2] == (1, "hpsearch: s3://lab: Connection refused\n")
    assert desk.store.studies.find("demo")
    assert launch("demo", "--yes", verb="delete")[0] == 0
    assert desk.store.studies.find("demo") is None


@pytest.mark.usefixtures("far")
def test_a_finished_study_is_reported_as_finished(demo: Demo) -> None:
    demo.run(plays(steadily(1.0)))
    stored = demo.store.studies.find("demo")
    assert stored is not None
    with pytest.raises(HpsearchError, match="demo is finished"):
        launch_verb._refuse_idle(demo.store, stored)


def test_a_file_of_this_machine_is_no_store_for_others(
    desk: Desk, far: type[Far], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["hpsearch", "launch", str(desk.file().path), "--on", "far"])
    with pytest.raises(SystemExit) as exited:
        app_module.main()
    assert (exited.value.code, far.started) == (2, [])
    assert "an SQLite file belongs to this machine" in capfd.readouterr().err


def test_an_engine_that_can_t_be_asked_hides_no_other(demo: Demo, far: type[Far]) -> None:
    study_id = demo.study.study_id
    for engine, options in (("far", {"partition": "gpu"}), ("mars", {}), ("far", {"moons": 2})):
        demo.store.launches.add(study_id, engine, options, [LaunchedJob(job_id="7_0", log="a.txt")])
    told = call_roll(demo.store, study_id)
    assert [called.silence for called in told] == [
        None,
        "this hpsearch knows no engine 'mars'",
        "moons: far has no such option; known: partition, cpus",
    ]
    assert [job.state for job in told[0].jobs] == [JobState.PENDING]
    assert len(dismiss(demo.store, study_id, now=True)) == 2
    assert far.ended == [(["7_0"], True)]
    far.refusal = "the controller doesn't answer"
    assert call_roll(demo.store, study_id)[0].silence == "the controller doesn't answer"
    assert not call_roll(demo.store, study_id)[0].is_over


def test_watching_asks_an_engine_every_ten_seconds(demo: Demo, far: type[Far]) -> None:
    study_id, now = demo.study.study_id, 100.0
    demo.store.launches.add(study_id, "far", {}, [LaunchedJob(job_id="7_0")])
    roll = Roll(demo.store, lambda: now)
    assert roll.of(study_id)[0].jobs[0].state is JobState.PENDING
    far.state, now = JobState.RUNNING, 109.0
    assert roll.of(study_id)[0].jobs[0].state is JobState.PENDING
    now = 110.0
    assert roll.of(study_id)[0].jobs[0].state is JobState.RUNNING


def test_sites_are_read_from_this_folder() -> None:
    assert Path("launch.yaml") == sites.FILE
