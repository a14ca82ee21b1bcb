"""Logging in: the token is given once, in a form, and a cookie stands for it until the dashboard ends. A program that
reads /metrics sends the token itself, as `Authorization: Bearer TOKEN`.
"""

from __future__ import annotations

import hmac
import html
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv6Address, ip_address, ip_network
from math import ceil
from threading import Lock
from urllib.parse import parse_qs, quote
from wsgiref.types import WSGIEnvironment

from hpsearch.errors import InputError
from hpsearch.watch.door.answers import TENSORBOARD, Answer, words

PATH = "/login"
VARIABLE = "HPSEARCH_DASHBOARD_TOKEN"
_MAX_FORM_BYTES = 4096
_MIN_CHARACTERS = 16
_FREE_FAILURES = 5
_MAX_WAIT_S = 60
_MAX_ADDRESSES = 1024


def check_token(token: str) -> str:
    """Raises InputError, which does not repeat the token, where it is easily guessed or can't be typed into a form."""
    if len(token) < _MIN_CHARACTERS or not (token.isascii() and token.isprintable()) or " " in token:
        raise InputError(
            f"${VARIABLE}: expected at least {_MIN_CHARACTERS} letters, digits and signs without spaces; make one: "
            f"export {VARIABLE}=$(python3 -c 'import secrets; print(secrets.token_urlsafe(32))')"
        )
    return token


class Attempts:
    """Wrong tokens per address: after a few, each must wait longer. Holds a bounded number of addresses.

    Behind a proxy everybody has the proxy's address and waits together. Users that are logged in are not delayed.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = Lock()
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()  # failures, time of the next attempt

    def begin(self, address: str) -> float:
        """Counts an attempt before the token is checked; returns the seconds to wait, 0 where it may be checked."""
        network = _network(address)
        with self._lock:
            failures, next_at = self._failures.pop(network, (0, 0.0))
            wait_s = max(0.0, next_at - self._clock())
            if not wait_s:
                failures += 1
                over = min(failures - _FREE_FAILURES, 10)
                next_at = self._clock() + min(2**over, _MAX_WAIT_S) if over >= 0 else 0.0
            self._failures[network] = failures, next_at
            while len(self._failures) > _MAX_ADDRESSES:
                self._failures.popitem(last=False)
        return wait_s

    def forget(self, address: str) -> None:
        with self._lock:
            self._failures.pop(_network(address), None)

    def take_back(self, address: str) -> None:
        """The attempt was right; earlier failures still count: a scraper that asks every few seconds must not reset the
        count of wrong tokens from its address.
        """
        network = _network(address)
        with self._lock:
            failures, _ = self._failures.pop(network, (1, 0.0))
            if failures > 1:
                self._failures[network] = failures - 1, 0.0


def _network(address: str) -> str:
    """The /64 network: one household has 2^64 IPv6 addresses."""
    ip = ip_address(address)
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped is None:
        return str(ip_network((int(ip), 64), strict=False))
    return address


class Login:
    """Sessions and their start. The token is compared in constant time and never sent."""

    def __init__(self, token: str, port: int, attempts: Attempts | None = None) -> None:
        self._token = token
        self._session = secrets.token_urlsafe(32)
        self._cookie = f"hpsearch_dashboard_{port}"  # a browser sends one host's cookies to all of its ports
        self._attempts = attempts or Attempts()

    def has_let_in(self, environ: WSGIEnvironment) -> bool:
        cookies = [one.strip().partition("=") for one in environ.get("HTTP_COOKIE", "").split(";")]
        return any(name == self._cookie and _same(value, self._session) for name, _, value in cookies)

    def ask(
        self, environ: WSGIEnvironment, complaint: str = "", status: str = "401 Unauthorized", place: str | None = None
    ) -> Answer:
        """The form for a person, a text for a program. `place` is the page that the person wants, if not this one."""
        path = environ["PATH_INFO"]
        if "text/html" not in environ.get("HTTP_ACCEPT", "") or path.startswith("/api/"):
            return words(status, complaint or "a token is required: reload the page to log in", path)
        page = _PAGE.format(complaint=html.escape(complaint), to=html.escape(quote(_place(place or path))))
        return Answer(status, page.encode(), _PAGE_HEADERS)

    def ask_program(self, environ: WSGIEnvironment) -> Answer | None:
        """None where the request carries the token. Wrong ones count together with those of the form."""
        scheme, _, token = environ.get("HTTP_AUTHORIZATION", "").strip().partition(" ")
        if scheme.lower() != "bearer":
            return _unauthorized("a token is required: log in at /dashboard, or send Authorization: Bearer TOKEN")
        if wait_s := self._attempts.begin(environ["REMOTE_ADDR"]):
            return words("429 Too Many Requests", _too_many(wait_s))
        if not _same(token.strip(), self._token):
            return _unauthorized("wrong token")
        self._attempts.take_back(environ["REMOTE_ADDR"])
        return None

    def answer(self, environ: WSGIEnvironment) -> Answer:
        """The response to a submitted form."""
        address = environ["REMOTE_ADDR"]
        length = min(int(environ.get("CONTENT_LENGTH") or 0), _MAX_FORM_BYTES)
        sent = parse_qs(environ["wsgi.input"].read(length).decode("ascii", "replace"))
        form = {name: values[0] for name, values in sent.items()}
        place = _place(form.get("to", ""))
        wait_s = self._attempts.begin(address)
        if wait_s:
            return self.ask(environ, _too_many(wait_s), "429 Too Many Requests", place)
        if not _same(form.get("token", "").strip(), self._token):
            return self.ask(environ, "wrong token", "403 Forbidden", place)
        self._attempts.forget(address)
        secure = "; Secure" if environ["wsgi.url_scheme"] == "https" else ""
        cookie = f"{self._cookie}={self._session}; Path=/; HttpOnly; SameSite=Strict{secure}"
        return Answer("303 See Other", b"", (("Location", quote(place)), ("Set-Cookie", cookie)))


def _too_many(wait_s: float) -> str:
    return f"too many wrong tokens from this address: wait {ceil(wait_s)} s before the next one"


def _unauthorized(text: str) -> Answer:
    said = words("401 Unauthorized", text)
    return replace(said, headers=(*said.headers, ("WWW-Authenticate", 'Bearer realm="hpsearch"')))


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode("utf-8", "replace"), other.encode())


def _place(path: str) -> str:
    """The page that a person wanted: one of our two applications, never another site."""
    return path if path.startswith(("/dashboard", TENSORBOARD)) else "/dashboard"


_PAGE_HEADERS = (
    ("Content-Type", "text/html; charset=utf-8"),
    ("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'"),
)
_PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>hpsearch dashboard</title>
<style>
:root {{ color-scheme: light dark }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 26em; margin: 15vh auto; padding: 0 1em }}
input, button {{ font: inherit; padding: .4em .6em; box-sizing: border-box; width: 100%; margin-top: .6em }}
.complaint {{ color: light-dark(#a00, #ff8a80) }}
</style></head>
<body>
<h1>hpsearch dashboard</h1>
<p>The token is shown in the terminal where <code>hpsearch dashboard</code> was started, or in that terminal's
<code>$HPSEARCH_DASHBOARD_TOKEN</code>.</p>
<p class="complaint" role="alert">{complaint}</p>
<form method="post" action="/login">
<input type="hidden" name="to" value="{to}">
<label>Token <input type="password" name="token" autocomplete="current-password" autofocus required></label>
<button>Log in</button>
</form>
</body>
</html>
"""
