"""The dashboard as a user sees it: in a real browser, with TensorBoard behind its door, and gone after Ctrl-C."""

from __future__ import annotations

import html
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.error import HTTPError, URLError
from urllib.request import HTTPCookieProcessor, Request, build_opener, urlopen

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
    """A running `hpsearch dashboard`: its address without a path, and its process."""

    root: str
    command: Command

    @property
    def url(self) -> str:
        return f"{self.root}/dashboard"


Open = Callable[..., Dashboard]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def answer(url: str | Request, command: Command | None = None) -> str:
    """What a web server says, once it is there; the command that makes it so must not end before."""
    deadline = time.monotonic() + SECONDS_TO_START
    while True:
        try:
            with urlopen(url, timeout=SECONDS_TO_START) as response:
                return str(response.read(), "utf-8")
        except HTTPError as error:
            return str(error.read(), "utf-8")
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
    """Starts `hpsearch dashboard` in a folder with a finished study; returns it when it answers."""
    folder = tmp_path_factory.mktemp("dashboard")
    (folder / "storage").mkdir()
    with Store(parse_url(f"sqlite:///{folder / 'storage' / 'hpsearch.db'}", from_argv=False)) as store:
        demo = new_demo(store, folder, spec={"study": "digits-on-gemma"})
        leaky = ledger(7.5, not_given_back=["12 MiB of device memory"])
        demo.run(plays(trains(Outcome.COMPLETE, [2.0, 1.25], ledger(6.5)), trains(Outcome.PRUNED, [3.5], leaky)))

    def open_(*arguments: str, before: tuple[str, ...] = (), **environment: str) -> Dashboard:
        port = free_port()
        words = (*before, "hpsearch", "dashboard", "--port", str(port), *arguments)
        command = start(*words, folder=folder, **{"HPSEARCH_DASHBOARD_TOKEN": "", **environment})
        root = f"http://127.0.0.1:{port}"
        answer(f"{root}/dashboard", command)
        return Dashboard(root, command)

    return open_


@pytest.fixture(scope="module")
def dashboard(open_dashboard: Open) -> Dashboard:
    return open_dashboard()


@pytest.fixture(scope="module")
def dom(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Gives the HTML of a page when its scripts have run."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium is installed: apt-get install chromium")
    profile = tmp_path_factory.mktemp("profile")

    def dom(url: str) -> str:
        # Virtual time stops while a request is under way, and runs fast otherwise.
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--dump-dom"]
        command = [browser, *options, "--virtual-time-budget=20000", f"--user-data-dir={profile}", url]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout

    return dom


@pytest.fixture(scope="module")
def browse(dom: Callable[[str], str]) -> Callable[[str], str]:
    """Gives the words on a page when its scripts have run."""

    def browse(url: str) -> str:
        body = re.sub(r"(?s)<(script|style).*?</\1>", "", dom(url))
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


def test_the_page_shows_the_pictures(dashboard: Dashboard, dom: Callable[[str], str]) -> None:
    """They are asked for as images, and their answers let browsers open them as nothing else."""
    page = dom(f"{dashboard.url}/studies/1/trials?numbers=0")
    (picture,) = set(re.findall(r'<img[^>]* src="(/artifacts/1/[^"]+)"', page))
    with urlopen(f"{dashboard.root}{picture}") as response:
        assert (response.headers["Content-Type"], response.read(4)) == ("image/png", b"\x89PNG")


def test_tensorboard_serves_the_final_runs(dashboard: Dashboard, browse: Callable[[str], str]) -> None:
    assert "/storage/runs" in answer(f"{dashboard.root}/tensorboard/data/environment")
    assert "No dashboards are active for the current data set" in browse(f"{dashboard.root}/tensorboard/")


def ports(dashboard: Dashboard) -> list[tuple[str, int]]:
    connections = psutil.Process(dashboard.command.pid).net_connections()
    return [(one.laddr.ip, one.laddr.port) for one in connections if one.status == psutil.CONN_LISTEN]


def test_one_process_listens_on_one_port(dashboard: Dashboard) -> None:
    """TensorBoard has neither of its own: everybody on the machine could reach it there."""
    answer(f"{dashboard.root}/tensorboard/")
    assert ports(dashboard) == [("127.0.0.1", int(dashboard.root.rpartition(":")[2]))]
    assert psutil.Process(dashboard.command.pid).children(recursive=True) == []


def test_where_others_can_reach_it_the_token_is_asked_for_and_not_shown(open_dashboard: Open) -> None:
    token = secrets.token_urlsafe(32)
    opened = open_dashboard("--host", "0.0.0.0", HPSEARCH_DASHBOARD_TOKEN=token)
    assert '<form method="post" action="/login">' in answer(Request(opened.url, headers={"Accept": "text/html"}))
    assert "a token is required" in answer(f"{opened.root}/api/studies")
    form = Request(f"{opened.root}/login", data=f"token={token}".encode())
    let_in = build_opener(HTTPCookieProcessor()).open(form, timeout=SECONDS_TO_START)
    assert "Optuna Dashboard" in str(let_in.read(), "utf-8")
    os.killpg(opened.command.pid, signal.SIGINT)
    said, complained = opened.command.communicate(timeout=SECONDS_TO_END)
    assert "0.0.0.0 is every network of this machine" in said
    assert "Plain HTTP, with the token, can be read on the network" in said
    assert token not in said + complained


def test_ctrl_c_ends_it(open_dashboard: Open) -> None:
    opened = open_dashboard()
    answer(f"{opened.root}/tensorboard/")
    os.killpg(opened.command.pid, signal.SIGINT)
    said, complained = opened.command.communicate(timeout=SECONDS_TO_END)
    assert (opened.command.returncode, complained) == (130, "")
    assert f"dashboard:   {opened.root}   (read-only; " in said
    assert f"TensorBoard: {opened.root}/tensorboard/   " in said
    with pytest.raises(URLError):
        answer(opened.url)


def test_sigterm_ends_it_where_a_script_started_it_with_and(open_dashboard: Open) -> None:
    """The signal of `kill`, of systemd and of Docker. What a script starts with & ignores Ctrl-C from birth."""
    opened = open_dashboard(before=("sh", "-c", "trap '' INT; exec \"$@\"", "sh"))
    opened.command.terminate()
    _, complained = opened.command.communicate(timeout=SECONDS_TO_END)
    assert (opened.command.returncode, complained) == (130, "")
