"""Responses: those that the door gives itself, and the headers that it adds to every response."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

TENSORBOARD = "/tensorboard"
METRICS = "/metrics"
_ARTIFACTS = "/artifacts/"
_STATIC = "/static/"
_SHOWN = re.compile(r"image/(png|jpeg|gif|webp)", re.IGNORECASE)
"""Artifacts that a browser may open as pages of their own."""
_INSIDE_PAGES = re.compile(r"(image/svg\+xml|(audio|video)/[a-z0-9.+-]+)", re.IGNORECASE)
"""Downloads that keep their type: pages show them in <img>, <audio> and <video>, where no script runs."""

_REPLACED = {
    "x-content-type-options",
    "x-frame-options",
    "referrer-policy",
    "cross-origin-resource-policy",
    "access-control-allow-origin",  # optuna-dashboard offers artifacts to every site (0.21.0, artifact/_backend.py)
}

Headers = list[tuple[str, str]]


@dataclass(frozen=True)
class Answer:
    """A complete response; a WSGI application."""

    status: str
    body: bytes
    headers: tuple[tuple[str, str], ...]

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response(self.status, [*self.headers, ("Content-Length", str(len(self.body)))])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [self.body]


def words(status: str, text: str, path: str = "") -> Answer:
    """In the format that optuna-dashboard's page shows, if it sent the request."""
    if path.startswith("/api/"):
        return Answer(status, json.dumps({"reason": text}).encode(), (("Content-Type", "application/json"),))
    return Answer(status, f"{text}\n".encode(), (("Content-Type", "text/plain; charset=utf-8"),))


def with_headers(start_response: StartResponse, path: str) -> StartResponse:
    """A `start_response` that adds headers which protect this response from other sites."""

    def start(status: str, headers: Headers, *error: Any) -> Any:
        return start_response(status, _guarded(headers, path), *error)

    return start


def _guarded(headers: Headers, path: str) -> Headers:
    kept = [(name, value) for name, value in headers if name.lower() not in _REPLACED]
    if path.startswith(_ARTIFACTS):
        kept = _as_artifact(kept)
    if not any(name.lower() == "cache-control" for name, _ in kept):
        # A page from the browser's cache would appear without its data instead of the login form.
        kept.append(("Cache-Control", "private" if path.startswith(_STATIC) else "no-store"))
    inside_itself = path.startswith(f"{TENSORBOARD}/")  # it shows its plugins in frames
    return [
        *kept,
        ("X-Content-Type-Options", "nosniff"),
        ("X-Frame-Options", "SAMEORIGIN" if inside_itself else "DENY"),
        ("Content-Security-Policy", "frame-ancestors 'self'" if inside_itself else "frame-ancestors 'none'"),
        # Not no-referrer: browsers would then send `Origin: null` with our own login form.
        ("Referrer-Policy", "same-origin"),
        ("Cross-Origin-Resource-Policy", "same-origin"),
    ]


def _as_artifact(headers: Headers) -> Headers:
    """A file of any type that anybody with write access to the store may have put there: never served as a page or a
    script.

    optuna-dashboard's pages take an artifact's type from the study, not from this response.
    """
    found = {name.lower(): value for name, value in headers}.get("content-type", "").split(";")[0].strip()
    kept = [(name, value) for name, value in headers if name.lower() not in ("content-type", "content-disposition")]
    is_shown = bool(_SHOWN.fullmatch(found))
    if not is_shown:
        kept.append(("Content-Disposition", "attachment"))
    is_known = is_shown or _INSIDE_PAGES.fullmatch(found)
    return [
        *kept,
        ("Content-Type", found if is_known else "application/octet-stream"),
        ("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; sandbox"),
    ]
