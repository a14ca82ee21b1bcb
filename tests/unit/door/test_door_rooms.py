"""What is behind the door: headers of answers, artifacts, plain paths only, TensorBoard beside optuna-dashboard."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

from hpsearch.store import Store
from hpsearch.watch.tensorboard import TensorBoard
from tests.unit.door_fixtures import FILES, Served, nobody, serving

# What answers carry


def test_artifacts_are_downloads_and_never_pages_or_scripts(shown: Served) -> None:
    found = {}
    for name, (_, content) in FILES.items():
        got = shown.ask("GET", f"/artifacts/1/{name}")
        assert (got.status, got.text.encode()[-4:]) == (200, content[-4:])
        assert got.headers["X-Content-Type-Options"] == "nosniff"
        assert "sandbox" in got.headers.get_all("Content-Security-Policy", [])[0]
        assert "Access-Control-Allow-Origin" not in got.headers
        found[name] = (got.headers["Content-Type"], got.headers["Content-Disposition"])
    assert found == {
        "a0": ("image/png", None),
        "a1": ("application/octet-stream", "attachment"),
        "a2": ("image/svg+xml", "attachment"),
        "a3": ("application/octet-stream", "attachment"),
        "a4": ("video/mp4", "attachment"),
    }


@pytest.mark.parametrize("path", ["/dashboard", "/api/studies", "/nothing", "/static/bundle.js", "/artifacts/1/a1"])
def test_every_answer_keeps_other_sites_out(shown: Served, locked: Served, path: str) -> None:
    for served in (shown, locked):
        got = served.ask("GET", path)
        assert got.headers["X-Content-Type-Options"] == "nosniff"
        assert got.headers["X-Frame-Options"] == "DENY"
        assert got.headers["Referrer-Policy"] == "same-origin"
        assert got.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "frame-ancestors 'none'" in got.headers.get_all("Content-Security-Policy", [])
        assert len(got.headers.get_all("X-Content-Type-Options", [])) == 1
        assert got.headers["Cache-Control"] == ("private" if path.startswith("/static/") else "no-store")


@pytest.mark.parametrize(
    "path",
    [
        "/static/../_app.py",
        "/static/..%2f_app.py",
        "/static/%2e%2e/_app.py",
        "/static/..%5c_app.py",
        "/artifacts/1/..%2f..%2fhpsearch.db",
        "/artifacts/1/%2e%2e/hpsearch.db",
        "/artifacts//1/a1",
        "/./artifacts/1/a1",
        "/tensorboard/../api/studies",
        "/tensorboard/%2e%2e/api/studies",
        "/dashboard%00",
        "http://127.0.0.1/api/studies",
    ],
)
def test_no_path_leads_around(shown: Served, path: str) -> None:
    got = shown.ask("GET", path)
    assert got.status == 400
    assert "the path has" in got.text


# TensorBoard


def test_tensorboard_stands_behind_the_same_door(shown: Served) -> None:
    got = shown.ask("GET", "/tensorboard/")
    assert got.status == 200
    assert "<title>TensorBoard</title>" in got.text
    assert got.headers["X-Frame-Options"] == "SAMEORIGIN"
    assert shown.ask("GET", "/tensorboard").headers["Location"] == "/tensorboard/"
    assert '/runs"' in shown.ask("GET", "/tensorboard/data/environment").text
    assert shown.ask("GET", "/tensorboardx").status == 404


def test_tensorboard_finds_its_fonts_which_it_asks_for_at_the_root(shown: Served, locked: Served) -> None:
    """Fails when it asks for them below its own path: then `_FONTS` is needed no more."""
    font = re.findall(r"url\((/font-roboto/[^)]+)\)", shown.ask("GET", "/tensorboard/").text)[0]
    assert shown.ask("GET", font).headers["Content-Type"] == "font/woff2"
    assert locked.ask("GET", font).status == 401


def test_tensorboard_asks_with_post_and_gets_its_curves_where_nothing_may_change(shown: Served) -> None:
    form = {"Content_Type": "application/x-www-form-urlencoded"}
    for place in ("", "/experiment/defaultExperimentId"):
        path = f"/tensorboard{place}/data/plugin/timeseries/timeSeries"
        assert shown.ask("POST", path, "requests=[]", **form).status == 200
        assert shown.ask("POST", path, "requests=[]", Origin="https://evil.example", **form).status == 403
    assert shown.ask("POST", "/tensorboard/data/runs", "").status == 403


def test_tensorboard_shows_final_runs_and_tracked_trials(filled: tuple[Store, Path], tmp_path: Path) -> None:
    from tensorboard.summary import Writer

    for place in ("runs/demo/tensorboard", "tensorboard/demo-1a/trial-0007"):
        writer = Writer(str(tmp_path / place))
        writer.add_scalar("train/loss", 0.5, 1)
        writer.close()
    with serving(filled[0], tmp_path, nobody) as served:
        deadline = time.monotonic() + 60
        while len(found := json.loads(served.ask("GET", "/tensorboard/data/runs").text)) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert found == ["demo/tensorboard", "trials/demo-1a/trial-0007"]


def test_a_tensorboard_that_does_not_load_takes_nothing_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpsearch.watch.tensorboard._load", lambda *_: 1 / 0)
    said: list[str] = []
    body = TensorBoard(tmp_path, tmp_path)({"REQUEST_METHOD": "GET"}, lambda status, *_: said.append(status))  # type: ignore[arg-type,return-value,func-returns-value]
    assert said == ["503 Service Unavailable"]
    assert b"".join(body) == b"TensorBoard does not start: ZeroDivisionError: division by zero\n"
