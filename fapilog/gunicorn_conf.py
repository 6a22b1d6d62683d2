"""
Gunicorn configuration: ``gunicorn -c python:fapilog.gunicorn_conf app:app``.

In a conf file of your own, one line is enough, and your hooks stay yours::

    from fapilog.gunicorn_conf import logger_class

Each hook may also be used by itself (``from fapilog.gunicorn_conf import post_fork``), or called from one of your own. A star
import brings `logger_class` only, so it replaces no hook.
"""

from __future__ import annotations

from fapilog.servers.gunicorn import child_exit, dirty_worker_exit, on_exit, on_starting, post_fork, worker_exit
from fapilog.servers.gunicorn_logger import Logger as logger_class  # noqa: N813 - gunicorn's name for the setting
from fapilog.servers.setup import configure_or_exit as _configure_or_exit

__all__ = ["logger_class"]

_HOOKS = (on_starting, post_fork, worker_exit, child_exit, dirty_worker_exit, on_exit)

_configure_or_exit()
