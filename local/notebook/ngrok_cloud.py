"""ngrok's side of the local run: where its agent is downloaded from, and what its cloud accepts.

The agent that is served is the stand-in (`ngrok_stand_in.py`), packed as ngrok packs the real one.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import secrets
import shlex
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

STAND_IN = Path(__file__).with_name("ngrok_stand_in.py")


MOVED = "/moved/"
"""Where the archive is when its address redirects."""


class NgrokCloud:
    """Serves the agent's archive on 127.0.0.1.

    home: an existing directory for the cloud's state; `answers.json` in it, if there, has the answers to facts that are not
    confirmed (`emulator.answers`). python: an interpreter that has PyYAML.
    download: the archive's address; the stand-in runs on any processor. token: the one that is accepted.
    """

    def __init__(self, home: Path, python: str) -> None:
        self.home = home
        self.token = f"{secrets.token_hex(12)}_{secrets.token_hex(10)}"  # the shape of a real one
        (home / "token").write_text(self.token)
        archive = _archive(_program(home, python))
        self.sha256 = hashlib.sha256(archive).hexdigest()

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self._head()

            def do_GET(self) -> None:
                if self._head():
                    self.wfile.write(archive)

            def _head(self) -> bool:
                """Send the headers; whether the archive follows."""
                moves = _answers(home).get("ngrok-redirect") == "redirects" and not self.path.startswith(MOVED)
                self.send_response(302 if moves else 200)
                if moves:
                    self.send_header("Location", f"http://{self.headers['Host']}{MOVED}{self.path.rpartition('/')[2]}")
                self.send_header("Content-Length", "0" if moves else str(len(archive)))
                self.end_headers()
                return not moves

            def log_message(self, *_: Any) -> None:
                """Nothing: the requests are of no interest."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.download = f"http://127.0.0.1:{self._server.server_port}/ngrok-v3-stable-linux.tgz"
        threading.Thread(target=self._server.serve_forever, name="ngrok-download", daemon=True).start()

    def refuse(self, number: int | None) -> None:
        """Answer every start from now on with ngrok's error `number`; None accepts again."""
        refusal = self.home / "refusal"
        if number is None:
            refusal.unlink(missing_ok=True)
        else:
            refusal.write_text(str(number))

    def go_away(self) -> None:
        """Lose every session, and what is connected through it."""
        new = self.home / "faults.new"
        new.write_text(json.dumps({"lost": True}))
        new.replace(self.home / "faults.json")

    def close(self) -> None:
        """Serve no more."""
        self._server.shutdown()
        self._server.server_close()


def _answers(home: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((home / "answers.json").read_text()))
    except FileNotFoundError:
        return {}


def _program(cloud: Path, python: str) -> bytes:
    """The stand-in as one executable file. A shell starts it, since a first line cannot hold a path with spaces."""
    text = STAND_IN.read_text("utf-8").replace("@cloud@", str(cloud).replace("\\", "\\\\").replace('"', '\\"'))
    start = f'exec {shlex.quote(python)} -I "$0" "$@"'
    return f"#!/bin/sh\n''':'\n{start}\n'''\n{text}".encode()


def _archive(program: bytes) -> bytes:
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as zipped, tarfile.open(fileobj=zipped, mode="w") as tar:
        entry = tarfile.TarInfo("ngrok")
        entry.size, entry.mode = len(program), 0o755
        tar.addfile(entry, io.BytesIO(program))
    return packed.getvalue()
