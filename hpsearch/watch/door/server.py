"""Server: a bounded number of threads, and short timeouts for clients that send slowly or never read."""

from __future__ import annotations

import errno
import io
import socket
import sys
import time
from contextlib import suppress
from socketserver import TCPServer, ThreadingMixIn
from threading import BoundedSemaphore
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from hpsearch.errors import InputError
from hpsearch.watch.door.addresses import Address

NUM_CONNECTIONS = 64
REQUEST_S = 30
"""A whole request must arrive within this time; each piece of a response must be sent within it."""
_LAST_WORD_S = 2


class _Arriving(io.RawIOBase):
    """Input of a connection until a deadline: with a timeout per read, a client could send a byte every few seconds."""

    def __init__(self, connection: socket.socket, seconds: float) -> None:
        self._connection = connection
        self._until = time.monotonic() + seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left_s = self._until - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        self._connection.settimeout(left_s)
        try:
            return self._connection.recv_into(buffer)
        finally:
            self._connection.settimeout(REQUEST_S)


class _Handler(WSGIRequestHandler):
    def setup(self) -> None:
        super().setup()
        self.rfile = io.BufferedReader(_Arriving(self.connection, REQUEST_S))

    def handle(self) -> None:
        super().handle()
        if getattr(self, "headers", {}).get("Content-Length", "0") != "0":
            self._hear_out()

    def _hear_out(self) -> None:
        """Reads what the client still sends: if the connection closes first, the client sees an error and never the
        response.
        """
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            rest = _Arriving(self.connection, _LAST_WORD_S)
            buffer = bytearray(2**16)
            while rest.readinto(buffer):
                pass

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """No log line per request."""


class Server(ThreadingMixIn, WSGIServer):
    """Use as a context manager; `set_app`, then `serve_forever`."""

    daemon_threads = True
    request_queue_size = NUM_CONNECTIONS

    def __init__(self, address: Address) -> None:
        """Binds the port.

        Raises:
            InputError: it is in use, or this machine has no such address.
        """
        self.address_family = address.family
        self._free = BoundedSemaphore(NUM_CONNECTIONS)
        try:
            super().__init__((address.ip, address.port), _Handler)
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                raise InputError(f"--host {address.given}: {address.ip} is no address of this machine") from None
            raise InputError(f"port {address.port}: {error.strerror}; take another one with --port") from None

    def server_bind(self) -> None:
        """Without http.server's look-up of our own name, which may take seconds."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        """When all threads are busy, a new client is refused at once."""
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._free.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A traceback, except where the client only disconnected."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)
