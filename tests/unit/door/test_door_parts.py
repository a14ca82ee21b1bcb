"""Parts of the door without a request: addresses, wrong tokens over time, slow connections, and the messages."""

from __future__ import annotations

import io
import socket
from dataclasses import replace

import pytest

from hpsearch.cli.dashboard import _choose_token, _say_where
from hpsearch.errors import InputError
from hpsearch.watch.console import open_console
from hpsearch.watch.door import server as server_module
from hpsearch.watch.door.addresses import Address, Hosts, find_address
from hpsearch.watch.door.login import VARIABLE, Attempts, check_token
from hpsearch.watch.door.server import Server
from tests.unit.door_fixtures import TOKEN, Served
from tests.unit.worker_fixtures import Clock

EVERYWHERE = Address("0.0.0.0", "0.0.0.0", 8080, socket.AF_INET)
LOOPBACK = replace(EVERYWHERE, given="127.0.0.1", ip="127.0.0.1")


# Addresses


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1.2.3", "::1"])
def test_loopback_is_known_by_its_address(host: str) -> None:
    address = find_address(host, 8080)
    assert address.is_loopback
    assert Hosts(address).only_loopback
    assert address.family == (socket.AF_INET6 if ":" in host else socket.AF_INET)


def test_every_network_is_not_loopback_and_answers_to_this_machines_addresses() -> None:
    for host in ("0.0.0.0", "::"):
        address = find_address(host, 8080)
        hosts = Hosts(address)
        assert address.is_everywhere
        assert not address.is_loopback
        assert not hosts.only_loopback
        assert hosts.know("127.0.0.1:8080")
        assert hosts.know(f"{socket.gethostname()}:8080")
        assert not hosts.know("10.254.254.254:8080")
        assert address.url == f"http://{socket.gethostname()}:8080"


def test_another_name_on_loopback_means_that_others_come_through_a_proxy() -> None:
    assert Hosts(LOOPBACK, ["localhost:9000", "LOCALHOST"]).only_loopback
    assert not Hosts(LOOPBACK, ["dash.lab"]).only_loopback


@pytest.mark.parametrize("name", ["https://dash.lab", "*", "*.lab", "dash.lab/", "", "dash.lab:https", "a b"])
def test_an_allowed_host_is_a_name(name: str) -> None:
    with pytest.raises(InputError, match="expected NAME or NAME:PORT"):
        Hosts(LOOPBACK, [name])


def test_a_host_without_an_address_is_words() -> None:
    with pytest.raises(InputError, match=r"^--host no such name: "):
        find_address("no such name", 8080)
    with pytest.raises(InputError, match=r"^--host 203\.0\.113\.1: 203\.0\.113\.1 is no address of this machine"):
        Server(find_address("203.0.113.1", 8080))


def test_a_taken_port_is_words() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(InputError, match=r"^port \d+: Address already in use; take another one with --port$"),
    ):
        Server(find_address("127.0.0.1", taken.getsockname()[1]))


# The token


@pytest.mark.parametrize("token", ["short", "a" * 15, "with a space in it", "with\nanother line in it", "é" * 20])
def test_a_token_that_is_easily_guessed_or_mistyped_is_refused_and_not_repeated(token: str) -> None:
    with pytest.raises(InputError, match=VARIABLE) as refused:
        check_token(token)
    assert token not in str(refused.value)


def chosen(hosts: Hosts, asked_for: bool = False, is_terminal: bool = True) -> tuple[str | None, str]:
    said = io.StringIO()
    return _choose_token(open_console(file=said, force_terminal=is_terminal), hosts, asked_for), said.getvalue()


@pytest.fixture
def no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.mark.usefixtures("no_variable")
def test_a_token_is_made_wherever_it_is_not_loopback_and_shown_once() -> None:
    assert chosen(Hosts(LOOPBACK)) == (None, "")
    cases = [(Hosts(EVERYWHERE), False), (Hosts(LOOPBACK, ["dash.lab"]), False), (Hosts(LOOPBACK), True)]
    tokens = set()
    for hosts, asked_for in cases:
        token, said = chosen(hosts, asked_for)
        assert token is not None
        assert len(token) >= 40
        assert said.count(token) == 1
        tokens.add(token)
    assert len(tokens) == 3


@pytest.mark.usefixtures("no_variable")
def test_a_new_token_is_not_written_into_a_log() -> None:
    with pytest.raises(InputError, match="would be printed into a log"):
        chosen(Hosts(EVERYWHERE), is_terminal=False)


def test_a_given_token_is_asked_for_everywhere_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, TOKEN)
    for hosts in (Hosts(LOOPBACK), Hosts(EVERYWHERE)):
        assert chosen(hosts) == (TOKEN, "")
    monkeypatch.setenv(VARIABLE, "")
    assert chosen(Hosts(LOOPBACK)) == (None, "")


def test_the_message_says_what_every_network_means() -> None:
    said = io.StringIO()
    _say_where(open_console(file=said), EVERYWHERE, allow_changes=False)
    for words in ("is every network of this machine", "TLS", "ssh -L 8080:127.0.0.1:8080", "/tensorboard/"):
        assert words in said.getvalue()
    said = io.StringIO()
    _say_where(open_console(file=said), LOOPBACK, allow_changes=True)
    assert "network" not in said.getvalue()
    assert "dashboard:   http://127.0.0.1:8080   (changes and deletions are allowed)" in said.getvalue()


def test_wrong_tokens_take_longer_and_longer_for_their_own_address_only() -> None:
    clock = Clock()
    attempts = Attempts(clock)
    waits = []
    for _ in range(14):
        waits.append(attempts.begin("10.0.0.1"))
        clock.now += waits[-1]
        if waits[-1]:
            assert attempts.begin("10.0.0.1") == 0
    assert waits == [0, 0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert attempts.begin("10.0.0.2") == 0
    attempts.forget("10.0.0.1")
    assert [attempts.begin("10.0.0.1") for _ in range(5)] == [0] * 5


def test_addresses_of_one_house_count_together_and_only_so_many_are_remembered() -> None:
    attempts = Attempts(Clock())
    waits = [attempts.begin(f"2001:db8::{number:x}") for number in range(6)]
    assert waits == [0, 0, 0, 0, 0, 1]
    assert [attempts.begin(f"::ffff:10.0.0.{number}") for number in range(6)] == [0] * 6
    for number in range(3000):
        attempts.begin(f"10.0.{number // 256}.{number % 256}")
    assert len(attempts._failures) == 1024


# Slow connections


def test_a_request_that_takes_too_long_is_not_waited_for(shown: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "REQUEST_S", 0.05)
    with socket.create_connection(("127.0.0.1", shown.port), timeout=30) as connection:
        connection.sendall(b"GET / HTTP/1.0\r\nHost: 127")
        assert connection.recv(1) == b""


def test_bytes_that_drip_in_do_not_move_the_end() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"GET / HTTP/1.0\r\n")
        assert server_module._Arriving(ours, 30).readinto(bytearray(5)) == 5
        with pytest.raises(TimeoutError):
            server_module._Arriving(ours, 0).readinto(bytearray(5))


def test_the_answer_arrives_although_its_question_was_not_read(shown: Served) -> None:
    """The other side still sends when it is answered: its own buffer is too small to be done before."""
    head = f"PUT /api/studies/1/note HTTP/1.0\r\nHost: 127.0.0.1:{shown.port}\r\nContent-Length: {2**21}\r\n\r\n"
    with socket.socket() as connection:
        connection.settimeout(30)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        connection.connect(("127.0.0.1", shown.port))
        connection.sendall(head.encode() + b"x" * 2**21)
        assert connection.makefile("rb").readline().startswith(b"HTTP/1.0 403 ")


def test_who_comes_when_all_are_busy_is_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "NUM_CONNECTIONS", 1)
    with Server(find_address("127.0.0.1", 0)) as server:
        place = ("127.0.0.1", server.server_port)
        with socket.create_connection(place, timeout=30), socket.create_connection(place, timeout=30) as second:
            server.handle_request()
            server.handle_request()
            assert second.recv(1) == b""
