"""One of our functions, asked the same thing again and again."""

from __future__ import annotations

import importlib
import json
from types import SimpleNamespace
from typing import Any

CALLER = "arn:aws:sts::123456789012:assumed-role/demo-role/SageMaker"
SLOWED = "BENCH_SLOWED"
"""Makes the handler slower on purpose, to see that the suite notices: loops of this many turns in each answer."""

CONTEXT = SimpleNamespace(
    function_name="f", memory_limit_in_mb=256, invoked_function_arn="arn:aws:lambda:::function:f", aws_request_id="1"
)
"""What Lambda gives a handler about the invocation."""

HOST_KEYS = [
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f",
    "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4fICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=",
]
"""As Amazon Linux 2023 makes them, in kind and size."""

PATHS = {"lookup_api": ("GET", "/notebooks/{name}/ssh"), "record_address": ("POST", "/notebooks/{name}/report")}


def main(function: str, times: str) -> None:
    """function: `lookup_api` or `record_address`. times: how often it is asked."""
    import os

    slowed = int(os.environ.get(SLOWED, "0"))
    handler = importlib.import_module(f"{function}.handler")
    if function == "record_address":
        from notebook_ssh.adapters import secrets
        from notebook_ssh.adapters.secrets import Secret

        # As in a process that read the token less than a minute ago.
        secrets.ngrok_secret = lambda *_: Secret("v1", "token")
    for turn in range(int(times)):
        for _ in range(slowed):
            pass
        reply = handler.handle(_event(function, turn), CONTEXT)
        if reply["statusCode"] != 200:
            raise SystemExit(f"{function} answered {reply}")


def _event(function: str, turn: int) -> dict[str, Any]:
    method, resource = PATHS[function]
    return {
        "resource": resource,
        "path": resource.replace("{name}", "demo"),
        "httpMethod": method,
        "headers": {"Accept": "*/*"},
        "pathParameters": {"name": "demo"},
        "requestContext": {"requestId": "1", "accountId": CALLER.split(":")[4], "identity": {"userArn": CALLER}},
        "body": json.dumps(_report(turn)) if method == "POST" else None,
        "isBase64Encoded": False,
    }


def _report(turn: int) -> dict[str, Any]:
    import time

    return {
        "agent": "1.0",
        "boot": "boot-1",
        "booted_at": int(time.time()) - 550,
        "sequence": turn + 6,
        "modes": ["ngrok"],
        "phase": "connected",
        "host": "0.tcp.ngrok.io",
        "port": 17887,
        "host_keys": HOST_KEYS,
        "keys": {"own": 1, "central": 0, "rejected": []},
        "sessions": {"open": 0, "active_at": None},
        "problem": None,
        "token_version": "v1",
    }
