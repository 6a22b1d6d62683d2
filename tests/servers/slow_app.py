"""`apps.api` with a sink beside the file that takes its time for each event, so that most wait when the server is told to end."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import apps

import fapilog

if TYPE_CHECKING:
    from collections.abc import Sequence

EACH_S = 0.01
FOLDER = Path(os.environ["FAPILOG_TEST_SLOW"])


class Slow:
    name = "slow"

    async def open(self, identity: fapilog.Identity) -> None:
        self._path = FOLDER / f"slow.{identity.pid}"

    async def write(self, events: Sequence[fapilog.Event]) -> None:
        with self._path.open("ab", buffering=0) as file:
            for event in events:
                time.sleep(EACH_S)
                file.write(event.line)

    async def close(self) -> None:
        pass


api = apps.api
fapilog.configure_logging(app=api, sinks=["file", Slow()])
