"""The dashboard as a person sees it: in a real browser, with TensorBoard beside it, and gone after Ctrl-C."""

from __future__ import annotations

import html
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from urllib.error import URLError
from urllib.request import urlopen

import psutil
import pytest

from hpsearch.bridge.protocol import Event
from hpsearch.folders import JobFolder
from hpsearch.store import Store
from hpsearch.store.engine import parse_url
from hpsearch.trial import MemoryLedger, Outcome
from tests.integration.command import Command, Start, commands
from tests.unit.worker_fixtures import Play, ScriptedTrainer, ending, ledger, new_demo, plays, report

pytestmark = pytest.mark.slow

SECONDS_TO_START = 60
SECONDS_TO_END = 30


@dataclass(frozen=True)
class Dashboard:
    """A running `hpsearch dashboard`: its address, TensorBoard's, and the processes of both."""

    url: str
    tensorboard_url: str
    command: Command
    processes: list[psutil.Process]


Open = Callable[[], Dashboard]


def free_ports(number: int) -> list[int]:
    with ExitStack() as stack:
        taken = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)]
        return [server.getsockname()[1] for server in taken]


def answer(url: str, command: Command | None = None) -> str:
    """What a web server says, once it is there; the command that makes it so must not end before."""
    deadline = time.monotonic() + SECONDS_TO_START
    while True:
        try:
            with urlopen(url, timeout=SECONDS_TO_START) as response:
                return str(response.read(), "utf-8")
        except (URLError, ConnectionError):
            if command is None or command.poll() is not None or time.monotonic() > deadline:
                raise
        time.sleep(0.05)


def trains(outcome: Outcome, losses: list[float], closed: MemoryLedger) -> Play:
    """A training with these losses and this ledger."""

    def play(trainer: ScriptedTrainer, folder: JobFolder) -> Iterator[Event | None]:
        del trainer
        yield from (report(step, loss) for step, loss in enumerate(losses, start=1))
        yield from ending(folder, outcome, *losses, ledger=closed)

    return play


@pytest.fixture(scope="module")
def start() -> Iterator[Start]:
    with commands() as start:
        yield start


@pytest.fixture(scope="module")
def open_dashboard(start: Start, tmp_path_factory: pytest.TempPathFactory) -> Open:
    """Starts `hpsearch dashboard` in a folder with a finished study; gives it when both servers answer."""
    folder = tmp_path_factory.mktemp("dashboard")
    (folder / "storage").mkdir()
    with Store(parse_url(f"sqlite:///{folder / 'storage' / 'hpsearch.db'}", from_argv=False)) as store:
        demo = new_demo(store, folder, spec={"study": "digits-on-gemma"})
        leaky = ledger(7.5, not_given_back=["12 MiB of device memory"])
        demo.run(plays(trains(Outcome.COMPLETE, [2.0, 1.25], ledger(6.5)), trains(Outcome.PRUNED, [3.5], leaky)))

    def open_() -> Dashboard:
        port, tensorboard_port = free_ports(2)
        ports = ("--port", str(port), "--tensorboard-port", str(tensorboard_port))
        command = start("hpsearch", "dashboard", *ports, folder=folder)
        url, tensorboard_url = f"http://127.0.0.1:{port}/dashboard", f"http://127.0.0.1:{tensorboard_port}"
        answer(url, command)
        answer(tensorboard_url, command)
        process = psutil.Process(command.pid)
        return Dashboard(url, tensorboard_url, command, [process, *process.children(recursive=True)])

    return open_


@pytest.fixture(scope="module")
def dashboard(open_dashboard: Open) -> Dashboard:
    return open_dashboard()


@pytest.fixture(scope="module")
def browse(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Gives the words on a page when its scripts have run."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium is installed: apt-get install chromium")
    profile = tmp_path_factory.mktemp("profile")

    def browse(url: str) -> str:
        # Virtual time stands still while a request is under way, and flies otherwise.
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--dump-dom"]
        command = [browser, *options, "--virtual-time-budget=20000", f"--user-data-dir={profile}", url]
        dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
        body = re.sub(r"(?s)<(script|style).*?</\1>", "", dom)
        return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", body)).split())

    return browse


def test_the_list_of_studies_names_the_study(dashboard: Dashboard, browse: Callable[[str], str]) -> None:
    assert "digits-on-gemma" in browse(dashboard.url)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (
            0,
            [
                "Complete",
                "Value 1.25",
                "Intermediate Values 1 2 2 1.25",
                "ledger.closes True",
                "ledger.peak_device_gib 6.5",
            ],
        ),
        (
            1,
            [
                "Pruned",
                "Intermediate Values 1 3.5",
                "ledger.closes False",
                "ledger.not_given_back 12 MiB of device memory",
            ],
        ),
    ],
)
def test_a_trial_is_shown_with_its_losses_parameters_and_memory_ledger(
    dashboard: Dashboard, browse: Callable[[str], str], number: int, words: list[str]
) -> None:
    page = browse(f"{dashboard.url}/studies/1/trials?numbers={number}")
    assert "digits-on-gemma" in page
    assert "3 Trials" in page
    shown = page[page.index(f"Trial {number} (trial_id=") :]
    for word in (*words, "training.learning_rate", "lora.r", "outcome"):
        assert word in shown


def test_tensorboard_serves_the_final_runs(dashboard: Dashboard) -> None:
    assert "<title>TensorBoard</title>" in answer(dashboard.tensorboard_url)
    assert "/storage/runs" in answer(f"{dashboard.tensorboard_url}/data/environment")


def still_run(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [process for process in processes if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


def test_ctrl_c_ends_both(open_dashboard: Open) -> None:
    """A terminal sends the signal to every process of the command."""
    opened = open_dashboard()
    assert len(opened.processes) >= 2
    os.killpg(opened.command.pid, signal.SIGINT)
    said, complained = opened.command.communicate(timeout=SECONDS_TO_END)
    assert opened.command.returncode == 130
    assert f"dashboard:   {opened.url.removesuffix('/dashboard')}\n" in said
    assert f"TensorBoard: {opened.tensorboard_url} " in said
    assert "Traceback" not in said + complained
    psutil.wait_procs(still_run(opened.processes), timeout=SECONDS_TO_END)
    assert still_run(opened.processes) == []
    for url in (opened.url, opened.tensorboard_url):
        with pytest.raises(URLError):
            answer(url)


def test_sigterm_ends_both(open_dashboard: Open) -> None:
    """The signal of `kill`, of systemd and of Docker: the command gets it alone, and ends TensorBoard first."""
    opened = open_dashboard()
    tensorboard = [process for process in opened.processes if process.ppid() == opened.command.pid]
    opened.command.terminate()
    opened.command.communicate(timeout=SECONDS_TO_END)
    assert len(tensorboard) == 1
    assert still_run(tensorboard) == []
