"""One of our functions, from a fresh process until it is ready: imported, its block known, and its steady state's clients made."""

from __future__ import annotations

import importlib


def main(function: str, *services: str) -> None:
    """function: `lookup_api` or another folder's name. services: what it talks to when nothing changes."""
    importlib.import_module(f"{function}.handler")
    from notebook_ssh.adapters.clients import client

    if function in ("reconcile_notebook", "sweep"):  # the others have nothing to do with the block
        from notebook_ssh.controllers.block_policy import load_policy
        from notebook_ssh.settings import read_settings

        print(load_policy(read_settings()).block_ref)
    for service in services:
        client(service)  # type: ignore[call-overload]
