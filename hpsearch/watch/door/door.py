"""Door: every request passes these checks, in this order: a plain path, an allowed Host, a body of bounded size, no
change sent by another site, the token, and no change unless changes are allowed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from hpsearch.watch.door import login
from hpsearch.watch.door.addresses import Hosts
from hpsearch.watch.door.answers import METRICS, TENSORBOARD, Answer, with_headers, words
from hpsearch.watch.door.login import Login

MAX_BODY_BYTES = 32 * 2**20
"""Of a request. optuna-dashboard sends an uploaded artifact as one JSON text and keeps it in memory."""

_READING = ("GET", "HEAD", "OPTIONS")
_READS_BY_POST = re.compile(rf"{TENSORBOARD}/(experiment/[^/]+/)?data/plugin/")
"""TensorBoard requests curves with POST, and its plugins write nothing (2.21.0, plugins/metrics/metrics_plugin.py)."""
_CROOKED = re.compile(r"//|\\|[\x00-\x1f\x7f]|/\.\.?(/|$)")


@dataclass(frozen=True)
class Door:
    """A WSGI application that protects another one. Without a `login` no token is needed."""

    inside: WSGIApplication
    hosts: Hosts
    login: Login | None
    allow_changes: bool

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        _take_proxy_at_its_word(environ)
        start_response = with_headers(start_response, environ["PATH_INFO"])
        answer = self._stopped(environ) or self.inside
        return answer(environ, start_response)

    def _stopped(self, environ: WSGIEnvironment) -> Answer | None:
        """The response that refuses the request; None lets it in."""
        path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
        refused = _refuse_malformed(environ) or self._refuse_host(environ)
        if refused is None and method not in _READING:
            refused = _refuse_other_sites(environ)
        if refused is not None:
            return refused
        if self.login is not None and path == login.PATH and method == "POST":
            return self.login.answer(environ)
        if self.login is not None and not self.login.has_let_in(environ):
            # A token in the request itself is for programs that only read; it does not give a person's rights.
            asked = self.login.ask_program if path == METRICS and method in _READING else self.login.ask
            return asked(environ)
        if path == login.PATH:
            return Answer("303 See Other", b"", (("Location", "/dashboard"),))
        is_reading = method in _READING or (method == "POST" and _READS_BY_POST.match(path))
        if not (is_reading or self.allow_changes):
            said = "this dashboard is read-only; start it with hpsearch dashboard --allow-changes to allow changes"
            return words("403 Forbidden", said, path)
        return None

    def _refuse_host(self, environ: WSGIEnvironment) -> Answer | None:
        host = environ.get("HTTP_HOST", "")
        if self.hosts.know(host):
            return None
        said = (
            f"the dashboard is not known as {host!r}. Where this name or port is yours, through a proxy or a tunnel, "
            "start it with hpsearch dashboard --allow-host NAME"
        )
        return words("403 Forbidden", said, environ["PATH_INFO"])


def _take_proxy_at_its_word(environ: WSGIEnvironment) -> None:
    """Trusts the proxy about TLS only, where a false header hurts only its sender; never about the host: bottle would
    build addresses from it.
    """
    if environ.pop("HTTP_X_FORWARDED_PROTO", "") == "https":
        environ["wsgi.url_scheme"] = "https"
    environ.pop("HTTP_X_FORWARDED_HOST", None)


def _refuse_malformed(environ: WSGIEnvironment) -> Answer | None:
    path, length = environ["PATH_INFO"], environ.get("CONTENT_LENGTH") or "0"
    if not path.startswith("/") or _CROOKED.search(path):
        return words("400 Bad Request", "the path has //, .., a \\ or a control character in it")
    if "HTTP_TRANSFER_ENCODING" in environ:
        return words("411 Length Required", "a request with a body needs a Content-Length")
    if not (length.isascii() and length.isdecimal()):
        return words("400 Bad Request", "Content-Length is no number")
    if int(length[:20]) > MAX_BODY_BYTES:
        return words("413 Content Too Large", f"a request may have at most {MAX_BODY_BYTES // 2**20} MiB", path)
    return None


def _refuse_other_sites(environ: WSGIEnvironment) -> Answer | None:
    """A page of another site can make a browser send any request, with our cookie; the browser adds that site's name.

    Browsers send Origin with every request that isn't a plain read. A program sends neither header, and no cookie that
    it was not given.
    """
    origin, site = environ.get("HTTP_ORIGIN"), environ.get("HTTP_SEC_FETCH_SITE", "same-origin")
    ours = f"{environ['wsgi.url_scheme']}://{environ['HTTP_HOST']}"
    if site in ("same-origin", "none") and (origin is None or origin.lower() == ours.lower()):
        return None
    said = f"this request came from a page of another site ({origin or site}), and the dashboard is {ours}"
    return words("403 Forbidden", said, environ["PATH_INFO"])
