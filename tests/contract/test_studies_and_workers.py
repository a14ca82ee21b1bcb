"""Studies and workers in the store: what goes in comes out, and who counts as dead."""

from __future__ import annotations

import itertools
import os
import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from contract_parts import claimed, created, ended, opened, result_of, spec_of
from sqlalchemy import update

import hpsearch.store.studies as studies_module
from hpsearch.errors import HpsearchError, InputError, LeaseLost
from hpsearch.search import Search
from hpsearch.spec import StudySpec
from hpsearch.store import Activity, LaunchedJob, Store
from hpsearch.store import workers as workers_module
from hpsearch.store.leases import Slots
from hpsearch.store.tables import studies
from hpsearch.store.workers import is_dead, own_worker_id, worker_id_of

FULL = StudySpec.model_validate(
    {
        "study": "full",
        "description": "naïve „quotes“ and 日本語",
        "task": "vlm-sft",
        "model": {"base": "tiny:gemma3", "quantization": "none"},
        "data": {
            "source": "rows.jsonl",
            "columns": {"image": "photo", "question": "q", "answer": "a", "group": "case"},
            "image_size": [896, 448],
            "split": {"column": "part", "validation": 0.25},
        },
        "lora": {"target_modules": ["q_proj"]},
        "training": {"learning_rate": 1e-5, "optimizer": "adamw_8bit"},
        "budget": {"max_steps": 7, "memory_gib": 15.5},
        "search": {
            "trials": 7,
            "sampler": {"name": "tpe", "startup_trials": 3},
            "pruner": "hyperband",
            "space": {
                "training.learning_rate": {"low": 1e-6, "high": 1e-3, "log": True},
                "lora.target_modules": [["q_proj"], ["q_proj", "v_proj"]],
                "lora.vision": [True, False],
                "model.revision": [None, "main"],
            },
        },
    }
)


class TestStudies:
    def test_a_study_comes_back_as_it_was_written(self, store: Store, store_url: str, tmp_path: Path) -> None:
        manifest = random.Random(0).randbytes(3 * 2**20)
        study_id = Search(store, FULL).study_id
        assert store.studies.create(study_id, FULL, 5, manifest, tmp_path / "a" / ".." / "b")
        with opened(store_url) as other:
            found = other.studies.find("full")
        assert found is not None
        assert found.spec == FULL
        assert found.manifest == manifest
        assert (found.study_id, found.name, found.trials) == (study_id, "full", 5)
        assert found.folder == tmp_path / "b"

    def test_only_the_first_worker_creates_a_study(self, store: Store, store_url: str) -> None:
        study_id = Search(store, FULL).study_id
        assert store.studies.create(study_id, FULL, 5, b"first", Path()) is True
        with opened(store_url) as other:
            assert other.studies.create(study_id, FULL, 6, b"second", Path()) is False
            assert [(study.trials, study.manifest) for study in other.studies.all()] == [(5, b"first")]

    def test_one_study_that_can_t_be_read_hides_no_other(self, store: Store) -> None:
        for name in ("good", "newer", "broken"):
            created(store, spec_of(name=name))
        for name, text in (("newer", '{"version": 99}'), ("broken", '{"version": 1, "spec": {"study": "broken"}}')):
            with store.optuna.engine.begin() as connection:
                connection.execute(update(studies).where(studies.c.name == name).values(spec=text))
        assert [study.name for study in store.studies.all()] == ["good"]
        assert {study.name: study.reason.partition(":")[0] for study in store.studies.unreadable()} == {
            "newer": "was made by a newer hpsearch",
            "broken": "can't be read",
        }
        assert store.studies.find("good") is not None
        with pytest.raises(InputError, match=r"^study 'newer' "):
            store.studies.find("newer")

    def test_all_studies_are_there_the_oldest_first(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        clock = itertools.count()
        monkeypatch.setattr(studies_module, "database_now", lambda _connection: next(clock))
        ids = {name: Search(store, spec_of(name=name)).study_id for name in ("three", "one", "two")}
        for name in ("one", "two", "three"):
            store.studies.create(ids[name], spec_of(name=name), 1, b"", Path())
        assert [study.name for study in store.studies.all()] == ["one", "two", "three"]
        assert store.studies.find("four") is None

    def test_an_update_changes_the_spec_and_the_budget_only(self, store: Store) -> None:
        search = created(store, spec_of(trials=3))
        before = store.studies.find("demo")
        assert before is not None
        store.studies.update(search.study_id, spec_of(trials=8), 8)
        after = store.studies.find("demo")
        assert after is not None
        assert (after.spec, after.trials) == (spec_of(trials=8), 8)
        assert (after.manifest, after.created_at) == (before.manifest, before.created_at)

    def test_a_study_deleted_with_stock_optuna_leaves_the_others_alone(self, store: Store) -> None:
        ids = [created(store, spec_of(name=name)).study_id for name in ("kept", "gone")]
        for study_id in ids:
            claimed(store, study_id, f"{study_id}:1:1.00")
            store.workers.register(f"{study_id}:1:1.00", study_id, "cpu")
        store.optuna.delete_study(ids[1])
        assert [study.name for study in store.studies.all()] == ["kept"]
        with pytest.raises(HpsearchError, match="it was deleted"):
            claimed(store, ids[1])
        store.studies.forget_deleted()
        assert [study.name for study in store.studies.all()] == ["kept"]
        assert [len(store.workers.of(study_id)) for study_id in ids] == [1, 0]
        assert [store.leases.slots(study_id).leased for study_id in ids] == [1, 0]

    def test_a_study_deleted_with_stock_optuna_can_be_made_again(self, store: Store) -> None:
        first = created(store, spec_of(trials=2))
        before = store.studies.find("demo")
        assert before is not None
        uid = before.uid
        old = claimed(store, first.study_id)
        store.leases.close(claimed(store, first.study_id))
        store.optuna.delete_study(first.study_id)
        assert store.studies.find("demo") is None
        again = created(store, spec_of(trials=1))
        stored = store.studies.find("demo")
        assert stored is not None
        with pytest.raises(HpsearchError, match="it was deleted"):  # SQLite gives the new one its id
            store.leases.claim(first.study_id, "old:1:1.00", 60.0, uid=uid)
        assert (stored.study_id, stored.trials) == (again.study_id, 1)
        new = claimed(store, again.study_id)
        with pytest.raises(LeaseLost):  # SQLite gave the study's id out again, and must not the lease's
            store.leases.renew(old, 60)
        ended(again, new, result_of([1.0]))
        assert store.leases.slots(again.study_id) == Slots(wanted=1, finished=1, leased=0)


class TestWorkers:
    def test_a_worker_registers_beats_and_leaves(self, store: Store) -> None:
        store.workers.register("host:1:1.00", 4, "none")
        (new,) = store.workers.of(4)
        assert (new.worker_id, new.device, new.gone) == ("host:1:1.00", "none", False)
        assert new.activity == Activity(doing="starting")
        activity = Activity(doing="training", trial=3, done=5, total=9, loss=float("nan"), device_bytes=2**40)
        store.workers.give_sign("host:1:1.00", activity, "NVIDIA H200")
        (beating,) = store.workers.of(4)
        assert beating.activity.model_dump_json() == activity.model_dump_json()
        assert (beating.device, beating.started_at, beating.gone) == ("NVIDIA H200", new.started_at, False)
        assert 0 <= beating.seconds_since_beat < 30
        store.workers.leave("host:1:1.00")
        assert [worker.gone for worker in store.workers.of(4)] == [True]

    def test_a_beat_is_one_worker_s_own_and_brings_it_nearer(self, store: Store) -> None:
        for number in (1, 2):
            store.workers.register(f"host:{number}:1.00", 4, "cpu")
        store.workers.give_sign("host:2:1.00", Activity(doing="training"), "cpu")
        first, second = store.workers.of(4)
        assert (first.activity.doing, second.activity.doing) == ("starting", "training")
        assert second.seconds_since_beat <= first.seconds_since_beat

    def test_workers_belong_to_their_study_the_oldest_first(self, store: Store) -> None:
        for number, study_id in ((2, 4), (1, 5), (3, 4)):
            store.workers.register(f"host:{number}:1.00", study_id, "cpu")
        assert [worker.worker_id for worker in store.workers.of(4)] == ["host:2:1.00", "host:3:1.00"]

    def test_a_worker_says_which_job_it_is(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        store.workers.register("host:1:1.00", 4, "cpu")
        monkeypatch.setenv("HPSEARCH_JOB", "1234_5")
        store.workers.register("host:2:1.00", 4, "cpu")
        assert [worker.job for worker in store.workers.of(4)] == [None, "1234_5"]


def test_launches_come_back_as_they_were_and_go_with_their_study(store: Store) -> None:
    study_id = created(store, spec_of()).study_id
    jobs = [LaunchedJob(job_id=f"1234_{number}", log=f"/logs/{number}.txt") for number in range(3)]
    store.launches.add(study_id, "slurm", {"partition": "gpu", "time": "4h"}, jobs)
    store.launches.add(study_id, "local", {}, jobs[:1])
    first, second = store.launches.of(study_id)
    assert (first.engine, first.options, first.jobs) == ("slurm", {"partition": "gpu", "time": "4h"}, jobs)
    assert (second.engine, second.host, second.jobs) == ("local", socket.gethostname(), jobs[:1])
    assert store.launches.of(study_id + 1) == []
    store.optuna.delete_study(study_id)
    store.studies.forget_deleted()
    assert store.launches.of(study_id) == []


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.wait()
    assert process.stdin is not None
    process.stdin.close()


def earlier(process: subprocess.Popen[bytes]) -> str:
    """Who had the process's pid before."""
    host, pid, start = worker_id_of(process.pid).rsplit(":", 2)
    ticks, _, place = start.partition("@")
    return f"{host}:{pid}:{int(ticks) - 1}@{place}"


class TestIsDead:
    def test_this_process_is_alive(self) -> None:
        host, pid, _started = own_worker_id().rsplit(":", 2)
        assert (host, int(pid)) == (socket.gethostname(), os.getpid())
        assert own_worker_id() == own_worker_id()
        assert not is_dead(own_worker_id())

    def test_another_process_is_alive_until_it_is_killed(self, sleeper: subprocess.Popen[bytes]) -> None:
        worker_id = worker_id_of(sleeper.pid)
        assert not is_dead(worker_id)
        sleeper.kill()
        sleeper.wait()
        assert is_dead(worker_id)

    def test_a_killed_process_that_nobody_waited_for_is_dead(self, sleeper: subprocess.Popen[bytes]) -> None:
        worker_id = worker_id_of(sleeper.pid)
        sleeper.kill()
        os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)  # it is dead now, and still a zombie
        assert is_dead(worker_id)

    def test_a_pid_that_another_process_has_now_is_dead(self, sleeper: subprocess.Popen[bytes]) -> None:
        assert is_dead(earlier(sleeper))

    @pytest.mark.parametrize("digit", [0, -1], ids=["another host or boot", "another container"])
    def test_nothing_is_known_of_other_places(self, digit: int, sleeper: subprocess.Popen[bytes]) -> None:
        """Hosts can have one name; containers on one host can have one name and each its own pids."""
        process, _, place = earlier(sleeper).partition("@")
        elsewhere = list(place)
        elsewhere[digit] = "1" if place[digit] == "0" else "0"
        assert not is_dead(f"{process}@{''.join(elsewhere)}")
        assert not is_dead(f"fe80::1:{sleeper.pid}:1.00")

    def test_another_user_s_process_is_known_by_its_start_unless_it_is_hidden(
        self, sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_arguments: int) -> None:
            raise PermissionError

        def hide(*_arguments: int) -> tuple[str, str]:
            raise FileNotFoundError

        worker_id, other = worker_id_of(sleeper.pid), earlier(sleeper)
        monkeypatch.setattr(os, "kill", refuse)
        assert (is_dead(worker_id), is_dead(other)) == (False, True)
        monkeypatch.setattr(workers_module, "_state_and_start", hide)
        assert (is_dead(worker_id), is_dead(other)) == (False, False)

    def test_setting_the_host_s_clock_kills_nobody(self, monkeypatch: pytest.MonkeyPatch) -> None:
        worker_id = own_worker_id()
        boot_time = psutil._pslinux.boot_time  # type: ignore[attr-defined]
        monkeypatch.setattr(psutil._pslinux, "boot_time", lambda: boot_time() + 1)  # type: ignore[attr-defined]
        assert not is_dead(worker_id)
