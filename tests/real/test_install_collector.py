"""The installer of the Collector, with a `go` that is none."""

from __future__ import annotations

import re
import shutil

import pytest

from tests.real import install, install_collector

GO = """#!/bin/sh
echo "$@" >> "$CALLS"
[ -z "$FAIL" ] || { echo "dial tcp: no route to host" >&2; exit 1; }
[ "$CGO_ENABLED$GOWORK" = 0off ] || exit 2
[ -f main.go ] && [ -f go.mod ] || exit 3
echo whole > otelcol
"""


@pytest.fixture
def env(tmp_path, monkeypatch):
    """An environment whose only `go` is ours, with a cache of its own."""
    go = tmp_path / "go"
    go.write_text(GO)
    go.chmod(0o755)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.setattr(shutil, "which", lambda _: str(go) if go.exists() else None)
    return tmp_path


def test_one_after_another(env) -> None:
    """The first builds, the second finds it there, and nothing else is left."""
    assert install_collector.install().read_text() == "whole\n"
    assert install_collector.install() == install_collector.binary()
    assert install_collector.missing() == ""
    assert len((env / "calls").read_text().splitlines()) == 1
    assert sorted(path.name for path in install.cache().iterdir()) == ["lock", f"otelcol-{install_collector.VERSION}"]


def test_a_build_that_fails(env, monkeypatch, capsys) -> None:
    """It says why, ends well unless it is required, and the tests' reason to skip says what to do."""
    monkeypatch.setenv("FAIL", "1")
    assert install_collector.main([]) == 0
    assert "no route to host" in capsys.readouterr().out
    assert install_collector.main(["--require"]) == 1
    assert not install_collector.binary().exists()
    assert install_collector.HOW in install_collector.missing()


def test_a_machine_without_go(env) -> None:
    """That is the reason."""
    (env / "go").unlink()
    wanted = "The OpenTelemetry Collector is not installed, and there is no `go` to install it with"
    assert install_collector.missing() == wanted
    with pytest.raises(install.NotInstalledError, match="there is no `go`"):
        install_collector.install()


def test_the_version() -> None:
    """It is the one that the source asks for."""
    asked = re.findall(r"/(?:fileexporter|otelcol|otlpreceiver) (v\S+)", (install_collector.SOURCE / "go.mod").read_text())
    assert asked == [install_collector.VERSION] * 3
