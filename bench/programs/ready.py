"""One of our functions, from a fresh process until it is ready: imported, and its steady state's clients made."""

from __future__ import annotations

import importlib


def main(function: str, *services: str) -> None:
    """function: `lookup_api` or another folder's name. services: what it talks to when nothing changes."""
    importlib.import_module(f"{function}.handler")
    from notebook_ssh.aws.clients import client

    for service in services:
        client(service)  # type: ignore[call-overload]
