"""
Build an OpenTelemetry Collector for the tests, by the `go` client, into a cache outside the checkout:
``python -m tests.real.install_collector``.

It is made of the Collector's own modules, with the OTLP receiver and the file exporter alone: `tests/real/collector/`.

Invariants: those of `tests.real.install`, whose cache, lock and options it shares.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

from tests.real.install import cache, found_go, once, run_go, told, why_not

VERSION = "v0.165.0"  # in collector/go.mod, too; newer ones need a newer Go than 1.26
HOW = "python -m tests.real.install_collector"
SOURCE = Path(__file__).parent / "collector"
#: Not tidied: that would ask for the modules of other modules' tests, too.
BUILD = ("build", "-mod=mod", "-trimpath", "-ldflags=-s -w", "-o", "otelcol", ".")


def binary() -> Path:
    """Return where the binary is, or would be."""
    return cache() / f"otelcol-{VERSION}"


def missing() -> str:
    """Return why there is no Collector to test with; "" if there is one."""
    return why_not("The OpenTelemetry Collector", binary(), HOW)


def install() -> Path:
    """
    Return the binary, built first where it is not there yet.

    Raises:
        NotInstalledError: There is no `go`, or it failed.
    """
    return once(binary(), _build)


def _build(target: Path) -> None:
    go = found_go()
    print(f"OpenTelemetry Collector {VERSION}: building it with {go}, which takes minutes", flush=True)
    with tempfile.TemporaryDirectory(dir=cache()) as folder:
        for name in ("main.go", "go.mod"):
            shutil.copy(SOURCE / name, folder)
        run_go([go, *BUILD], folder, GOFLAGS="-buildvcs=false", GOWORK="off")
        os.replace(Path(folder) / "otelcol", target)


def main(arguments: list[str]) -> int:
    return told(f"OpenTelemetry Collector {VERSION}", install, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
