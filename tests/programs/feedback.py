"""
A custom sink that posts each batch to an HTTP server, with the root logger at DEBUG; what the server got is printed.

The first argument says how the sink works: ``client`` posts with httpx on its own loop, ``executor`` with a blocking client in
`asyncio.to_thread()` and in the loop's default executor, ``logging`` also logs warnings of its own while it writes.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx

import fapilog

HOW = sys.argv[1]
INTERVAL_S = 0.05  # FAPILOG_QUEUE_BATCH_TIMEOUT
got: list[dict] = []
posts = 0


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        global posts
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/push":
            posts += 1
            got.extend(json.loads(body))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
server.daemon_threads = True
threading.Thread(target=server.serve_forever, daemon=True).start()
URL = f"http://127.0.0.1:{server.server_address[1]}"


class HttpSink:
    name = "http"

    async def open(self, identity):
        self.client = httpx.AsyncClient()

    async def write(self, events):
        said = [{"logger": event["logger"], "event": event["event"]} for event in events]
        if HOW == "executor":
            await asyncio.to_thread(httpx.post, f"{URL}/push", json=said)
            await asyncio.get_running_loop().run_in_executor(None, lambda: httpx.post(f"{URL}/other", json=[]))
            return
        if HOW == "logging":
            logging.getLogger("sink").warning("writing %d", len(events))
        await self.client.post(f"{URL}/push", json=said)

    async def close(self):
        await self.client.aclose()


async def use_the_same_client():
    async with httpx.AsyncClient() as client:
        for number in range(5):
            await client.post(f"{URL}/app", json=number)


logging.root.setLevel(logging.DEBUG)
fapilog.configure_logging(sinks=[HttpSink()])
for number in range(10):
    logging.getLogger("mine").info("%d", number)
time.sleep(10 * INTERVAL_S)  # the intervals of the case, no wait for a condition
asyncio.run(use_the_same_client())
assert fapilog.flush().complete
before = posts
time.sleep(10 * INTERVAL_S)
growth = posts - before
for each in got:
    print(each["logger"], each["event"])
print("growth", growth)
sys.stdout.flush()
