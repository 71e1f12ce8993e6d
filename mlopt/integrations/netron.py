"""Netron, local, without its beacons.

Netron's page reports to an analytics host unless its version is 0.0.0, and blocks on an
update dialog when its release date is long past. Both come from the server that it
starts here, so both are set here. These are private names of Netron: the version is
pinned, and where they have moved, `serve` refuses instead of letting anything be sent.
"""

from __future__ import annotations

import datetime
import re
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from mlopt.errors import BackendMissing, UsageError

POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' blob: data:"
"""A content policy that lets the page talk to this server and to nothing else, whatever
its scripts try."""


@dataclass
class Served:
    """A running viewer."""

    url: str
    server: ThreadingHTTPServer

    def wait(self) -> None:
        """Until Ctrl-C."""
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            self.close()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def serve(artifact: Path, port: int = 0, browse: bool = False) -> Served:
    """Serve one file. Raises `UsageError` for a missing file, `BackendMissing` without
    Netron."""
    if artifact.is_dir():
        found = [artifact / "model.onnx", artifact / "exports" / "model.onnx"]
        artifact = next((path for path in found if path.is_file()), artifact)
    if not artifact.is_file():
        raise UsageError(f"{artifact}: no such file", "give an ONNX file, or a run directory that has one")
    try:
        import netron.server
    except ImportError as error:
        raise BackendMissing("Netron", "pip install 'mlopt[view]'") from error
    root = Path(netron.server.__file__).parent
    page = (root / "index.html").read_text(encoding="utf-8")
    page, dated = re.subn(
        r'(<meta name="date" content=")[^"]*', rf"\g<1>{datetime.date.today().isoformat()} 00:00:00", page
    )
    page, versioned = re.subn(r'(<meta name="version" content=")[^"]*', r"\g<1>0.0.0", page)
    if not (dated and versioned):
        raise UsageError(
            "this version of Netron is not the one whose telemetry mlopt knows how to turn off",
            "pip install 'mlopt[view]'",
        )
    head = (
        f'<meta name="type" content="Python">\n<meta name="name" content="{artifact.name}">\n<meta'
        f' name="file" content="/data/{artifact.name}">\n'
    )
    page = page.replace('<meta name="version"', head + '<meta name="version"', 1)
    server = ThreadingHTTPServer(("127.0.0.1", port), _handler(root, page, artifact))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    served = Served(f"http://127.0.0.1:{server.server_address[1]}/", server)
    if browse:
        import webbrowser

        webbrowser.open(served.url)
    return served


TYPES = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".json": "application/json",
    ".ico": "image/x-icon",
    ".png": "image/png",
}


def _handler(root: Path, page: str, artifact: Path) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path in ("/", "/index.html"):
                self._send(page.encode(), "text/html")
            elif path == f"/data/{artifact.name}":
                self._send(artifact.read_bytes(), "application/octet-stream")
            else:
                file = (root / path.lstrip("/")).resolve()
                if file.is_file() and file.is_relative_to(root.resolve()):
                    self._send(file.read_bytes(), TYPES.get(file.suffix, "application/octet-stream"))
                else:
                    self.send_error(404)

        do_HEAD = do_GET

        def _send(self, body: bytes, kind: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Content-Security-Policy", POLICY)
            # Without it the page asks ipinfo.io where you are, and stops at a dialog
            # about reporting usage. Nothing is reported.
            self.send_header("Set-Cookie", "consent=0; SameSite=Strict")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            return

    return Handler
