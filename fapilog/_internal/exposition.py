"""
A server of metrics in a process of its own, which only reads the board: the workers do not notice it.

Invariants:

1. It takes no slot, starts no hub and writes nothing.
2. SIGINT and SIGTERM end it at once, whatever its clients do; each has a thread of its own, and `CLIENT_SECONDS` for each step.
3. It listens before it says so, and on 127.0.0.1 unless told otherwise.
"""

from __future__ import annotations

import signal
import socket
import socketserver
import threading
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from fapilog.metrics import make_wsgi_app

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CLIENT_SECONDS = 10.0
POLL_SECONDS = 0.1
_ENDINGS = (signal.SIGINT, signal.SIGTERM)


class _Handler(WSGIRequestHandler):
    timeout = CLIENT_SECONDS

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing: a scrape each second is no news."""


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, host: str, port: int) -> None:
        # The family first: the base class binds with its class's.
        ((self.address_family, _, _, _, address), *_) = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        super().__init__(address[:2], _Handler)  # type: ignore[arg-type]

    def server_bind(self) -> None:
        """Bind without the base class's look-up of the host's full name, which may take many seconds."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing about a client that has gone away or sends nonsense."""

    @property
    def url(self) -> str:
        """Where the metrics are."""
        host = f"[{self.server_name}]" if ":" in self.server_name else self.server_name
        return f"http://{host}:{self.server_port}/metrics"


def serve(run_dir: Path, host: str = "127.0.0.1", port: int = 0, ready: Callable[[str], object] = str) -> int:
    """
    Serve the metrics of the board in *run_dir* until SIGINT or SIGTERM; return the exit code, 0.

    Main thread only. Any path has them.

    Args:
        run_dir: It need not exist yet.
        host: Address or name to listen on.
        port: 0 for any that is free.
        ready: Called with the URL once it listens.

    Raises:
        ConfigurationError: The package prometheus-client is missing.
        OSError: It cannot listen there.
    """
    with _Server(host, port) as server:
        server.set_app(make_wsgi_app(run_dir=run_dir))
        # Blocked before the thread begins, which inherits that, so that each of them waits for `sigwait()`, also one that comes
        # before it: a handler could be called at a moment when nobody is ready for its exception.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDINGS)
        try:
            threading.Thread(target=server.serve_forever, args=(POLL_SECONDS,), name="fapilog-metrics", daemon=True).start()
            ready(server.url)
            signal.sigwait(_ENDINGS)
            server.shutdown()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return 0
