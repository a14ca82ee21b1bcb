"""`hpsearch dashboard`: the stock optuna-dashboard, TensorBoard for final runs and /metrics, behind a door."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Annotated

import typer

from hpsearch.cli.options import StoreOption, telling
from hpsearch.opening.places import open_store, storage_folder

if TYPE_CHECKING:
    from rich.console import Console

    from hpsearch.folders import StorageFolder
    from hpsearch.store import Store
    from hpsearch.watch.door.addresses import Address, Hosts


def dashboard(
    port: Annotated[int, typer.Option(min=1, max=65535, help="port to listen on")] = 8080,
    host: Annotated[
        str, typer.Option(help="address to listen on; other than loopback, it requires a token")
    ] = "127.0.0.1",
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME[:PORT]", help="another host name for browsers, such as a proxy's or a tunnel's"),
    ] = None,
    token: Annotated[
        bool, typer.Option("--token", help="require a token on loopback too; $HPSEARCH_DASHBOARD_TOKEN sets it")
    ] = False,
    allow_changes: Annotated[
        bool, typer.Option("--allow-changes", help="allow changes: rename, tell, note and delete; default: read-only")
    ] = False,
    store: StoreOption = None,
) -> None:
    """Open optuna-dashboard on the store, TensorBoard on the final runs, and /metrics for Prometheus."""
    from hpsearch.bridge.stopping import StopFlag
    from hpsearch.store import Store
    from hpsearch.store.reading import open_to_read
    from hpsearch.watch.console import open_console
    from hpsearch.watch.dashboard import make_dashboard
    from hpsearch.watch.door.addresses import Hosts, find_address
    from hpsearch.watch.door.door import Door
    from hpsearch.watch.door.login import Login
    from hpsearch.watch.door.server import Server
    from hpsearch.watch.prometheus import Metrics, StudyCollector
    from hpsearch.worker.relay import Relay

    console, storage = open_console(), storage_folder()
    address = find_address(host, port)
    hosts = Hosts(address, allow_host or [])
    secret = _choose_token(console, hosts, token)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what `kill`, systemd and Docker send
    with open_store(store) as opened, Server(address) as server, ExitStack() as stack:
        _draw(console, opened, storage)
        optuna = opened.optuna if allow_changes else open_to_read(opened.url)
        looking = stack.enter_context(Store(opened.url, only_to_read=True))
        relay = stack.enter_context(closing(Relay(looking, StopFlag())))
        metrics = Metrics(StudyCollector(looking, relay))
        inside = make_dashboard(optuna, storage, metrics)
        server.set_app(Door(inside, hosts, Login(secret, port) if secret else None, allow_changes))
        _say_where(console, address, allow_changes)
        server.serve_forever()


def _choose_token(console: Console, hosts: Hosts, asked_for: bool) -> str | None:
    """None where no token is needed. A generated token is shown once, and only on a terminal.

    Raises:
        InputError: it would be printed into a log.
    """
    import secrets

    from hpsearch.errors import InputError
    from hpsearch.watch.door.login import VARIABLE, check_token

    given = os.environ.get(VARIABLE)
    if given:
        return check_token(given)
    if hosts.only_loopback and not asked_for:
        return None
    if not console.is_terminal:
        raise InputError(
            f"the dashboard needs a token here, and a new one would be printed into a log: give one in ${VARIABLE}. "
            f"export {VARIABLE}=$(python3 -c 'import secrets; print(secrets.token_urlsafe(32))')"
        )
    made = secrets.token_urlsafe(32)
    console.print(f"token:       {made}   (for the login form; a new one at each start)", soft_wrap=True)
    return made


def _say_where(console: Console, address: Address, allow_changes: bool) -> None:
    can = "changes and deletions are allowed" if allow_changes else "read-only; see --allow-changes"
    lines = [
        f"dashboard:   {address.url}   ({can})",
        f"TensorBoard: {address.url}/tensorboard/   (Ctrl-C ends all)",
        f"Prometheus:  {address.url}/metrics",
    ]
    if address.is_everywhere:
        lines.append(
            f"{address.given} is every network of this machine: whoever reaches port {address.port} is asked for the "
            "token."
        )
    if not address.is_loopback:
        lines.append(
            "Plain HTTP, with the token, can be read on the network. Either put a server with TLS in front, or stay on "
            f"127.0.0.1 and open a tunnel on your own machine: ssh -L {address.port}:127.0.0.1:{address.port} "
            "THIS-MACHINE"
        )
    for line in lines:
        console.print(line, soft_wrap=True)


def _draw(console: Console, store: Store, storage: StorageFolder) -> None:
    """Draws missing pictures: of trials that ended on other machines, or after `hpsearch run` was stopped."""
    from hpsearch.search.view import read_view
    from hpsearch.watch.pictures import draw_study

    with store.reaching():
        known = store.studies.all()
    for study in known:
        with telling(console) as tell:
            summary = draw_study(store, read_view(store, study), storage, tell)
        if summary:
            console.print(f"{study.name}: {summary}", soft_wrap=True)
