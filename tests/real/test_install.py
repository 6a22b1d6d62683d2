"""The installer of VictoriaLogs, with a `go` that is none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.real import install

ROOT = Path(__file__).parents[2]
GO = """#!/bin/sh
echo "$@" >> "$CALLS"
[ -z "$FAIL" ] || { echo "dial tcp: no route to host" >&2; exit 1; }
[ "$CGO_ENABLED" = 0 ] || exit 2
sleep 0.2
echo whole > "$GOBIN/victoria-logs"
"""


@pytest.fixture
def env(tmp_path, monkeypatch):
    """An environment whose only `go` is ours, with a cache of its own."""
    programs = tmp_path / "bin"
    programs.mkdir()
    go = programs / "go"
    go.write_text(GO)
    go.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.setattr(shutil, "which", lambda _: str(go) if go.exists() else None)
    return tmp_path


def run(*arguments):
    command = [sys.executable, "-m", "tests.real.install", *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=dict(os.environ))


def test_two_that_ask_at_once(env) -> None:
    """One builds, both have it, and a third finds it there."""
    both = [run(), run()]
    assert [process.communicate(timeout=30)[0].count("building") for process in both] in ([0, 1], [1, 0])
    assert [process.returncode for process in both] == [0, 0]
    assert install.install().read_text() == "whole\n"
    assert install.missing() == ""
    calls = (env / "calls").read_text()
    assert calls == "install github.com/VictoriaMetrics/VictoriaLogs/app/victoria-logs@v1.52.1\n"
    assert sorted(path.name for path in install.cache().iterdir()) == ["lock", "victoria-logs-v1.52.1"]


def test_a_build_that_fails(env, monkeypatch) -> None:
    """It says why, ends well unless it is required, and the tests' reason to skip says what to do."""
    monkeypatch.setenv("FAIL", "1")
    allowed, required = run(), run("--require")
    output = allowed.communicate(timeout=30)[0]
    assert "no route to host" in output
    assert "the tests against it will skip" in output
    required.communicate(timeout=30)
    assert (allowed.returncode, required.returncode) == (0, 1)
    assert not install.binary().exists()
    assert install.HOW in install.missing()


def test_a_machine_without_go(env) -> None:
    """That is the reason."""
    (env / "bin" / "go").unlink()
    assert install.missing() == "VictoriaLogs is not installed, and there is no `go` to install it with"
    with pytest.raises(install.NotInstalledError, match="there is no `go`"):
        install.install()
