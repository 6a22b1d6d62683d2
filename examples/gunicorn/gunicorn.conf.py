"""Hooks of your own beside fapilog's: Gunicorn reads this file when no -c is given, `gunicorn app:app`.

`logger_class` puts Gunicorn's own logs through the hub and adds fapilog's hooks to those defined here, wherever they stand. If
Gunicorn shall keep its own logs, import `post_fork` from the same module instead, or call it from yours.
"""

from fapilog import get_logger
from fapilog.gunicorn_conf import logger_class  # noqa: F401 - Gunicorn reads it

worker_class = "uvicorn_worker.UvicornWorker"
workers = 4


def on_starting(server):
    server.log.info("my on_starting: before any worker is forked")


def post_fork(server, worker):
    get_logger("example.conf").info("worker_started", age=worker.age)


def worker_exit(server, worker):
    # Gunicorn calls this for every worker class but UvicornWorker, which dies of its signal; our guard drains there.
    get_logger("example.conf").info("worker_leaving", age=worker.age)


def on_exit(server):
    server.log.info("my on_exit: all workers are gone")
