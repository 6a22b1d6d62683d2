"""The installer of Prometheus, with an `apt-get` and a `dpkg-deb` that are none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.real import install_prometheus as installer
from tests.real.install import NotInstalledError

ROOT = Path(__file__).parents[2]
APT_GET = """#!/bin/sh
echo "$@" >> "$CALLS"
case "$*" in
update*|*" update") exit 0 ;;
esac
[ "$FAIL" = all ] && { echo "Unable to locate package" >&2; exit 100; }
[ "$FAIL" = lists ] && [ "$1" = download ] && exit 100
sleep 0.2
touch prometheus_2.0_all.deb
"""
DPKG_DEB = """#!/bin/sh
mkdir -p "$3/usr/bin"
echo whole > "$3/usr/bin/prometheus"
echo whole > "$3/usr/bin/promtool"
"""


@pytest.fixture
def env(tmp_path, monkeypatch):
    """An environment whose only `apt-get` and `dpkg-deb` are ours, without a Prometheus, with a cache of its own."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (("apt-get", APT_GET), ("dpkg-deb", DPKG_DEB)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    for name in ("sh", "mkdir", "sleep", "touch"):
        (programs / name).symlink_to(next(path for path in (Path("/bin") / name, Path("/usr/bin") / name) if path.exists()))
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.setenv("FAIL", "")
    return tmp_path


def run(*arguments):
    command = [sys.executable, "-m", "tests.real.install_prometheus", *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=dict(os.environ))


def test_two_that_ask_at_once(env) -> None:
    """One fetches, both have it, and nothing else is left in the cache."""
    both = [run(), run()]
    assert [process.communicate(timeout=30)[0].count("Prometheus: ") for process in both] == [1, 1]
    assert [process.returncode for process in both] == [0, 0]
    assert installer.install().read_text() == "whole\n"
    assert installer.missing() == ""
    assert (env / "calls").read_text() == "download prometheus\n"
    assert sorted(path.name for path in (env / "cache" / "fapilog-tests").iterdir()) == ["lock", "prometheus"]


def test_a_machine_whose_package_lists_are_missing(env, monkeypatch) -> None:
    """It gets lists of its own, for this once."""
    monkeypatch.setenv("FAIL", "lists")
    assert installer.install().read_text() == "whole\n"
    assert [line.split()[-1] for line in (env / "calls").read_text().splitlines()] == ["prometheus", "update", "prometheus"]
    assert sorted(path.name for path in (env / "cache" / "fapilog-tests").iterdir()) == ["lock", "prometheus"]


def test_a_download_that_fails(env, monkeypatch) -> None:
    """It says why, ends well unless it is required, and the tests' reason to skip says what to do."""
    monkeypatch.setenv("FAIL", "all")
    allowed, required = run(), run("--require")
    output = allowed.communicate(timeout=30)[0]
    assert "Unable to locate package" in output
    assert "the tests against it will skip" in output
    required.communicate(timeout=30)
    assert (allowed.returncode, required.returncode) == (0, 1)
    assert installer.HOW in installer.missing()


def test_a_machine_without_apt_get(env) -> None:
    """That is the reason."""
    (env / "bin" / "apt-get").unlink()
    assert installer.missing() == "Prometheus is not installed, and there is no `apt-get` to fetch it with"
    with pytest.raises(NotInstalledError, match="there is no `apt-get`"):
        installer.install()
