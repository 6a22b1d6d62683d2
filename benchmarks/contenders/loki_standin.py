"""Takes Loki's push requests and writes each entry's line to a file; ends when its standard input does."""

from __future__ import annotations

import gzip
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import orjson


class Handler(BaseHTTPRequestHandler):
    """Answers 204 to each push."""

    protocol_version = "HTTP/1.1"
    lock = threading.Lock()
    path_of_lines: Path

    def do_POST(self) -> None:
        """Write what came."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        lines = [value[1] for stream in orjson.loads(body)["streams"] for value in stream["values"]]
        with self.lock, self.path_of_lines.open("a") as file:
            file.writelines(f"{line}\n" for line in lines)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


if __name__ == "__main__":
    Handler.path_of_lines = Path(sys.argv[1])
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    sys.stdin.read()
    server.shutdown()
