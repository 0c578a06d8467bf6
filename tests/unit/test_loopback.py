"""The local run behind a proxy: what is on this machine is reached directly."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

import processes

ASK = """
import sys, urllib.request, processes

processes.reach_the_loopback_directly()
print(urllib.request.urlopen(sys.argv[1], timeout=240).read().decode())
"""
NOBODY = "http://127.0.0.1:9"


class Response(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"here")

    def log_message(self, *_: object) -> None: ...


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"http_proxy": NOBODY},
        {"HTTP_PROXY": NOBODY, "NO_PROXY": "example.com"},
        {"http_proxy": NOBODY, "no_proxy": "example.com,127.0.0.1"},
        {"http_proxy": NOBODY, "no_proxy": "", "NO_PROXY": "example.com"},
    ],
    ids=str,
)
def test_no_proxy_stands_before_this_machine(environment: dict[str, str]) -> None:
    with HTTPServer(("127.0.0.1", 0), Response) as server:
        threading.Thread(target=server.handle_request).start()
        told = subprocess.run(
            [sys.executable, "-c", ASK, f"http://127.0.0.1:{server.server_port}"],
            cwd=Path(processes.__file__).parent,
            env={"PATH": os.environ["PATH"], **environment},
            capture_output=True,
            text=True,
            check=True,
        )
    assert told.stdout == "here\n"


def test_what_else_is_reached_directly_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "example.com")
    monkeypatch.delenv("no_proxy", raising=False)
    processes.reach_the_loopback_directly()
    processes.reach_the_loopback_directly()
    assert os.environ["no_proxy"] == os.environ["NO_PROXY"] == "example.com,127.0.0.1"
