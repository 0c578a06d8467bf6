"""The instance-metadata service of a simulated notebook: version 2, and only the role's credentials.

The agent gets its credentials by the SDK's own chain, as on a real instance
(EC2 User Guide, "Use the Instance Metadata Service to access instance metadata").
"""

from __future__ import annotations

import json
import secrets
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ROLES = "/latest/meta-data/iam/security-credentials/"


class MetadataService:
    """Serves the `credentials` (`machine.Credentials` as a dict) of the role named `role`, on a free port of 127.0.0.1 or `at`.

    other: a role that it lists in place of `role`, and the credentials that it has under that name.
    """

    def __init__(
        self,
        role: str,
        credentials: dict[str, Any],
        at: tuple[str, int] = ("127.0.0.1", 0),
        other: tuple[str, dict[str, Any]] | None = None,
    ) -> None:
        token = secrets.token_hex(16)
        listed, its_credentials = other or (role, credentials)
        answers = {
            ROLES: listed,
            ROLES + role: json.dumps(_document(credentials)),
            ROLES + listed: json.dumps(_document(its_credentials)),
        }

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                self._answer(200 if self.path == "/latest/api/token" else 404, token)

            def do_GET(self) -> None:
                if self.headers.get("X-aws-ec2-metadata-token") != token:
                    self._answer(401, "")
                elif self.path in answers:
                    self._answer(200, answers[self.path])
                else:
                    self._answer(404, "")

            def _answer(self, status: int, text: str) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: Any) -> None:
                """Nothing: the requests are of no interest."""

        self._server = ThreadingHTTPServer(at, Handler)
        self.address = f"http://{at[0]}:{self._server.server_port}"

    def start(self) -> None:
        """Serve from now on, in a thread of its own."""
        threading.Thread(target=self._server.serve_forever, name="metadata-service", daemon=True).start()


def _document(credentials: dict[str, Any]) -> dict[str, str]:
    return {
        "Code": "Success",
        "Type": "AWS-HMAC",
        "AccessKeyId": credentials["key"],
        "SecretAccessKey": credentials["secret"],
        "Token": credentials["token"],
        "Expiration": datetime.fromtimestamp(credentials["expires"], UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "LastUpdated": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
