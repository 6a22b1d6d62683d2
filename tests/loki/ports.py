"""A port of 127.0.0.1 that stays one server's while nobody listens on it, and a thread that accepts on it."""

from __future__ import annotations

import contextlib
import select
import socket
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class ReservedPort:
    """
    A port kept over restarts.

    On Linux a bound socket that never listens keeps it: a connection to it is refused, no other program is given it, no outgoing
    connection chooses it (which could then connect to itself), and a server that sets ``SO_REUSEADDR``, as Go's do, may still
    listen on it. Elsewhere two sockets cannot share it so, and it is only likely to be free.
    """

    def __init__(self) -> None:
        self._guard = socket.socket()
        self._guard.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._guard.bind(("127.0.0.1", 0))
        self.number = int(self._guard.getsockname()[1])
        if sys.platform != "linux":
            self._guard.close()

    def listen(self) -> socket.socket:
        """Return a socket that listens on it."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", self.number))
            listener.listen(128)
        except OSError:
            listener.close()
            raise
        return listener

    def close(self) -> None:
        self._guard.close()


class Listener:
    """
    A thread that accepts until it is closed; `close` may be called from any thread, with the stand-in's lock held.

    The thread itself closes the socket: while another one is in `select`, the kernel keeps a closed socket listening. On Linux
    `shutdown` ends that at once; elsewhere it fails, and the thread is awake within the moment.
    """

    def __init__(self, sock: socket.socket, accepted: Callable[[socket.socket, tuple[str, int]], None]) -> None:
        self._socket = sock
        self._accepted = accepted
        self._wake, self._woken = socket.socketpair()
        self._socket.setblocking(False)
        self._thread = threading.Thread(target=self._run, name="loki-stand-in", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with self._woken, self._socket:
            while True:
                readable, _, _ = select.select([self._socket, self._woken], [], [])
                if self._woken in readable:
                    return
                with contextlib.suppress(OSError):
                    sock, peer = self._socket.accept()
                    sock.setblocking(True)
                    self._accepted(sock, peer)

    def close(self) -> threading.Thread:
        """Listen no more; return the thread, which ends."""
        self._wake.close()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        return self._thread
