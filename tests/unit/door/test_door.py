"""Who is let in at the door of the dashboard and what they may do, through real sockets, with the real optuna-dashboard
and TensorBoard behind it.
"""

from __future__ import annotations

import socket
from http.cookies import SimpleCookie

import pytest

from hpsearch.watch.door.door import MAX_BODY_BYTES
from tests.unit.door_fixtures import TOKEN, Served
from tests.unit.worker_fixtures import Clock

NEW_NOTE = ("PUT", "/api/studies/1/note", '{"version": 1, "body": "a note"}')
CHANGES = [
    ("POST", "/api/studies", '{"study_name": "other", "directions": ["minimize"]}'),
    ("POST", "/api/studies/1/rename", '{"study_name": "other"}'),
    ("DELETE", "/api/studies/1", "{}"),
    ("POST", "/api/trials/1/tell", '{"state": "Fail"}'),
    ("DELETE", "/api/artifacts/1/a0", None),
    ("POST", "/api/artifacts/1", '{"file": "data:text/html;base64,aGk=", "filename": "x.html"}'),
    ("POST", "/incompatible-rdb-schema", ""),
    ("BREW", "/api/studies", None),
    NEW_NOTE,
]
JSON = "application/json"


# Which hosts


def test_the_dashboard_is_there_under_the_names_of_this_machine_with_its_port(shown: Served) -> None:
    for name in ("127.0.0.1", "localhost", "LOCALHOST", "[::1]"):
        assert shown.ask("GET", "/api/studies", Host=f"{name}:{shown.port}").status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:{port}",
        "127.0.0.1",
        "localhost:1",
        "localhost.evil.example:{port}",
        "127.0.0.1:{port}.evil.example",
        "evil.example@127.0.0.1:{port}",
        "127.0.0.1:{port},evil.example",
        "",
        "0.0.0.0:{port}",
        "tunnel:{port}",
    ],
)
@pytest.mark.parametrize("path", ["/api/studies", "/dashboard", "/tensorboard/data/environment", "/artifacts/1/a0"])
def test_an_unknown_name_is_refused(shown: Served, host: str, path: str) -> None:
    """DNS rebinding: the page of another site has its own name point to us, and reads what we answer."""
    got = shown.ask("GET", path, Host=host.format(port=shown.port))
    assert got.status == 403
    assert "--allow-host NAME" in got.text
    assert "demo" not in got.text


def test_a_request_without_a_host_or_with_two_is_refused(shown: Served) -> None:
    for hosts in (b"", b"Host: 127.0.0.1:%d\r\nHost: evil.example\r\n" % shown.port):
        with socket.create_connection(("127.0.0.1", shown.port), timeout=30) as connection:
            connection.sendall(b"GET /api/studies HTTP/1.0\r\n" + hosts + b"\r\n")
            assert connection.makefile("rb").readline().startswith(b"HTTP/1.0 403 ")


def test_allowed_names_are_known_with_their_port_or_with_any(shown: Served) -> None:
    for host in ("dash.lab", "dash.lab:8443", "tunnel:9000"):
        assert shown.ask("GET", "/api/studies", Host=host).status == 200


def test_a_proxy_does_not_say_what_we_are_called(shown: Served) -> None:
    got = shown.ask("GET", "/", X_Forwarded_Host="evil.example")
    assert (got.status, got.headers["Location"]) == (302, f"http://127.0.0.1:{shown.port}/dashboard")


# Which sites


@pytest.mark.parametrize(
    "origin",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://localhost:{port}"},
        {"Origin": "https://127.0.0.1:{port}"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site", "Origin": "http://127.0.0.1:{port}"},
    ],
    ids=str,
)
def test_a_page_of_another_site_changes_nothing(open_to_changes: Served, origin: dict[str, str]) -> None:
    headers = {name: value.format(port=open_to_changes.port) for name, value in origin.items()}
    for method, path, body in CHANGES:
        got = open_to_changes.ask(method, path, body, Content_Type=JSON, **headers)
        assert got.status == 403
        assert "a page of another site" in got.text
    assert open_to_changes.study == "demo"


def test_a_page_of_another_site_logs_nobody_in(locked: Served) -> None:
    got = locked.log_in(Origin="https://evil.example")
    assert got.status == 403
    assert "Set-Cookie" not in got.headers


# Reading and changing


@pytest.mark.parametrize(("method", "path", "body"), CHANGES)
def test_without_allow_changes_it_only_shows(shown: Served, method: str, path: str, body: str | None) -> None:
    got = shown.ask(method, path, body, Content_Type=JSON, Origin=f"http://127.0.0.1:{shown.port}")
    assert got.status == 403
    assert "--allow-changes" in got.text
    assert shown.study == "demo"
    assert shown.ask("GET", "/artifacts/1/a0").status == 200


def test_with_allow_changes_it_changes(open_to_changes: Served) -> None:
    method, path, body = NEW_NOTE
    own_page = {"Origin": f"http://127.0.0.1:{open_to_changes.port}", "Sec_Fetch_Site": "same-origin"}
    assert open_to_changes.ask(method, path, body, Content_Type=JSON, **own_page).status == 204
    assert '"body": "a note"' in open_to_changes.ask("GET", "/api/studies/1").text


def test_the_refusal_is_in_the_form_that_the_page_shows(shown: Served) -> None:
    got = shown.ask("DELETE", "/api/studies/1")
    assert got.headers["Content-Type"] == JSON
    assert got.text.startswith('{"reason": "this dashboard is read-only; ')


def test_requests_have_a_size(open_to_changes: Served) -> None:
    """The connection is answered although the body never comes."""
    method, path, _ = NEW_NOTE
    for length, status in ((str(MAX_BODY_BYTES + 1), 413), ("9" * 5000, 413), ("-1", 400), ("two", 400), ("²", 400)):
        with socket.create_connection(("127.0.0.1", open_to_changes.port), timeout=30) as connection:
            host = f"127.0.0.1:{open_to_changes.port}"
            head = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\n"
            connection.sendall(head.encode("latin-1"))
            assert connection.makefile("rb").readline().split()[1] == str(status).encode()
    assert open_to_changes.ask(method, path, "{}", Transfer_Encoding="chunked").status == 411


# The token


@pytest.mark.parametrize("path", ["/", "/dashboard", "/dashboard/studies/1", "/tensorboard/", "/tensorboard", "/login"])
def test_a_person_without_the_token_sees_the_login_form(locked: Served, path: str) -> None:
    got = locked.ask("GET", path, Accept="text/html,*/*")
    assert got.status == 401
    assert '<form method="post" action="/login">' in got.text
    assert got.headers["Cache-Control"] == "no-store"
    assert "Optuna" not in got.text


@pytest.mark.parametrize(
    "path",
    [
        "/api/studies",
        "/api/studies/1",
        "/api/meta",
        "/csv/1",
        "/artifacts/1/a0",
        "/static/bundle.js",
        "/tensorboard/data/environment",
        "/tensorboard/index.js",
        "/nothing",
    ],
)
def test_a_program_without_the_token_gets_nothing(locked: Served, path: str) -> None:
    for headers in ({}, {"Accept": JSON}, {"Cookie": f"hpsearch_dashboard_{locked.port}=x"}, {"Cookie": f"={TOKEN}"}):
        got = locked.ask("GET", path, **headers)
        assert got.status == 401
        assert "demo" not in got.text
    assert locked.ask("POST", "/tensorboard/data/plugin/timeseries/timeSeries", "requests=[]").status == 401


@pytest.mark.parametrize("token", ["", "wrong", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "%FF%00", "é"])
def test_a_wrong_token_opens_nothing(locked: Served, token: str) -> None:
    locked.log_in()  # forgets wrong ones
    got = locked.log_in(token.encode().decode("latin-1"))
    assert got.status == 403
    assert "wrong token" in got.text
    assert 'name="to" value="/dashboard/studies/1"' in got.text
    assert "Set-Cookie" not in got.headers


def test_after_some_wrong_tokens_the_right_one_must_wait_too(locked: Served, clock: Clock) -> None:
    locked.log_in()
    for wrong, then in ((4, 303), (5, 429)):
        assert [locked.log_in("wrong").status for _ in range(wrong)] == [403] * wrong
        assert locked.log_in().status == then
    refused = locked.log_in()
    assert refused.status == 429
    assert "wait 1 s before the next one" in refused.text
    assert 'name="to" value="/dashboard/studies/1"' in refused.text
    assert "Set-Cookie" not in refused.headers
    clock.now += 1
    assert locked.log_in().status == 303


def test_the_token_opens_with_a_cookie_that_scripts_and_other_sites_can_not_use(locked: Served) -> None:
    got = locked.log_in()
    assert (got.status, got.headers["Location"]) == (303, "/dashboard/studies/1")
    (cookie,) = SimpleCookie(got.headers["Set-Cookie"]).values()
    flags = {name: cookie[name] for name in ("path", "httponly", "samesite", "secure", "domain", "max-age")}
    assert flags == {"path": "/", "httponly": True, "samesite": "Strict", "secure": "", "domain": "", "max-age": ""}
    for path in ("/api/studies", "/dashboard", "/artifacts/1/a0", "/tensorboard/data/environment"):
        assert locked.ask("GET", path, Cookie=f"other=1; {cookie.key}={cookie.value}").status == 200
    assert locked.ask("DELETE", "/api/studies/1", Cookie=f"{cookie.key}={cookie.value}").status == 403
    assert locked.ask("GET", "/login", Cookie=f"{cookie.key}={cookie.value}").headers["Location"] == "/dashboard"


def test_over_tls_the_cookie_stays_there(locked: Served) -> None:
    assert locked.log_in(X_Forwarded_Proto="https").headers["Set-Cookie"].endswith("; Secure")
    assert not locked.log_in(X_Forwarded_Proto="http").headers["Set-Cookie"].endswith("; Secure")
    over_tls = {"X_Forwarded_Proto": "https", "Origin": f"https://127.0.0.1:{locked.port}"}
    assert locked.log_in(**over_tls).status == 303


def test_the_token_is_in_no_answer_no_address_and_no_output(
    locked: Served, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    cookie = locked.cookie()
    answers = [locked.log_in(), locked.log_in("wrong"), locked.ask("GET", "/dashboard", Accept="text/html")]
    answers += [locked.ask("GET", f"/?token={TOKEN}"), locked.ask("GET", f"/nothing/{TOKEN}", Cookie=cookie)]
    assert answers[3].status == 401  # no address lets anyone in
    shown = "".join(f"{answer.headers}{answer.text}" for answer in answers[:3])
    assert TOKEN not in shown + cookie + "".join(capfd.readouterr()) + caplog.text


@pytest.mark.parametrize(
    "place", ["https://evil.example", "//evil.example", "/\\evil.example", "/api/studies", "x\r\ny"]
)
def test_logging_in_leads_to_no_other_site(locked: Served, place: str) -> None:
    body = f"token={TOKEN}&to={place}".replace("\r\n", "%0d%0a")
    assert locked.ask("POST", "/login", body).headers["Location"] == "/dashboard"
    split = locked.ask("POST", "/login", f"token={TOKEN}&to=/dashboard%0d%0aX-Mine: 1")
    assert split.headers["Location"] == "/dashboard%0D%0AX-Mine%3A%201"
    assert "X-Mine" not in split.headers


def test_what_a_person_asked_for_is_not_markup_in_the_form(locked: Served) -> None:
    got = locked.ask("GET", '/dashboard"><script>', Accept="text/html")
    assert "<script>" not in got.text
    assert "script-src" not in got.headers["Content-Security-Policy"]
    assert "default-src 'none'" in got.headers["Content-Security-Policy"]
