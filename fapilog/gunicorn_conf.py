"""
Gunicorn configuration: ``gunicorn -c python:fapilog.gunicorn_conf app:app``.

Each hook may also be called from a hook of your own. `post_fork` alone is enough::

    import fapilog.gunicorn_conf

    def post_fork(server, worker):
        fapilog.gunicorn_conf.post_fork(server, worker)
"""

from __future__ import annotations

from typing import Any

from fapilog.servers import gunicorn as _gunicorn

__all__ = ["on_exit", "on_starting", "post_fork", "worker_exit"]

_gunicorn.configure_master()


def on_starting(server: Any) -> None:
    """Tell the coordinator that this process is a master; in the master, before workers are forked."""
    del server
    _gunicorn.enter_master()


def post_fork(server: Any, worker: Any) -> None:
    """Arm the drain doors of a worker; in the worker, before the application is imported."""
    del server
    _gunicorn.enter_worker(worker)


def worker_exit(server: Any, worker: Any) -> None:
    """Drain the worker; in the worker, or in the master for a worker that was gone already."""
    del server, worker
    _gunicorn.leave()


def on_exit(server: Any) -> None:
    """Drain the master, after its workers are gone."""
    del server
    _gunicorn.leave()
