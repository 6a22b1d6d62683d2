"""The real servers as fixtures; a test that asks for one that is not there skips and says how to have it."""

from __future__ import annotations

import os

import pytest

from tests.real import install_collector
from tests.real.collector_server import OtelCollector
from tests.real.install import binary, missing
from tests.real.servers import URL_VARIABLE, UsersLoki, VictoriaLogs


@pytest.fixture(scope="session")
def victoria_logs_binary():
    """The installed program. A test never installs it: that takes minutes, which no test has."""
    if reason := missing():
        pytest.skip(reason)
    return binary()


@pytest.fixture
def victoria_logs(victoria_logs_binary, tmp_path):
    """A VictoriaLogs of the test's own, which it may stop and start."""
    with VictoriaLogs(victoria_logs_binary, tmp_path) as server:
        yield server


@pytest.fixture(scope="session")
def shared_victoria_logs(victoria_logs_binary, tmp_path_factory):
    """One for all tests that only push and read; each tells its entries by a label ``run``."""
    with VictoriaLogs(victoria_logs_binary, tmp_path_factory.mktemp("victoria-logs")) as server:
        yield server


@pytest.fixture(scope="session")
def users_loki():
    url = os.environ.get(URL_VARIABLE)
    if not url:
        pytest.skip(f"{URL_VARIABLE} names no Loki")
    return UsersLoki(url, next(iter(UsersLoki.tenants()), ""))


@pytest.fixture
def collector(tmp_path):
    """An OpenTelemetry Collector of the test's own, which it may stop and start."""
    if reason := install_collector.missing():
        pytest.skip(reason)
    with OtelCollector(install_collector.binary(), tmp_path) as server:
        yield server
