"""Hooks of your own beside fapilog's: Gunicorn reads this file when no -c is given, `gunicorn app:app`.

Gunicorn takes one function per hook, so each of yours calls ours by name. (A star import is no composition: whichever
definition comes last replaces the other without a word.) `post_fork` alone is enough for a complete log; the others
add the master's own part.
"""

from fapilog import get_logger, gunicorn_conf

worker_class = "uvicorn_worker.UvicornWorker"
workers = 4


def on_starting(server):
    gunicorn_conf.on_starting(server)
    server.log.info("my on_starting: before any worker is forked")


def post_fork(server, worker):
    gunicorn_conf.post_fork(server, worker)  # first, so that what you log below already belongs to this worker
    get_logger("example.conf").info("worker_started", age=worker.age)


def worker_exit(server, worker):
    # Gunicorn calls this for every worker class but UvicornWorker, which dies of its signal; our guard drains there.
    get_logger("example.conf").info("worker_leaving", age=worker.age)
    gunicorn_conf.worker_exit(server, worker)  # last, so that it drains what you logged above


def on_exit(server):
    server.log.info("my on_exit: all workers are gone")
    gunicorn_conf.on_exit(server)
