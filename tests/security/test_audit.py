"""`make audit`, asked of a stand-in for osv.dev on this machine: what is known is told, and fails."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]

WEAKNESS = {
    "id": "PYSEC-2026-1",
    "aliases": ["CVE-2026-1"],
    "summary": "A weakness that is made up",
    "affected": [{"package": {"name": "urllib3", "ecosystem": "PyPI"}, "ranges": [], "versions": []}],
}


class Osv(BaseHTTPRequestHandler):
    """Knows one weakness, of the package `weak`. asked: the packages it was asked about."""

    weak = ""
    asked: set[str]

    def do_POST(self) -> None:
        name = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["package"]["name"]
        self.asked.add(name)
        answer = json.dumps({"vulns": [WEAKNESS]} if name == self.weak else {}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def osv() -> Iterator[tuple[type[Osv], str]]:
    handler = type("Handler", (Osv,), {"asked": set()})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield handler, f"http://127.0.0.1:{server.server_port}/v1/query"
        server.shutdown()
        thread.join()


def audit(url: str) -> subprocess.CompletedProcess[str]:
    command = ["packaging/audit.sh", "requirements/functions.txt"]
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "OSV": url}
    return subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)


def test_every_pinned_package_is_looked_up(osv: tuple[type[Osv], str]) -> None:
    handler, url = osv
    said = audit(url)
    assert said.returncode == 0, said.stderr
    pinned = {line.partition("==")[0] for line in (PROJECT / "requirements/functions.txt").read_text().splitlines()}
    assert handler.asked == {name for name in pinned if name and name[0].isalnum()}


def test_a_known_vulnerability_is_printed_and_fails(osv: tuple[type[Osv], str]) -> None:
    handler, url = osv
    handler.weak = "urllib3"
    said = audit(url)
    assert said.returncode != 0
    assert "urllib3" in said.stdout
    assert "PYSEC-2026-1" in said.stdout


def test_no_answer_is_not_no_weakness() -> None:
    assert audit("http://127.0.0.1:9/v1/query").returncode != 0
