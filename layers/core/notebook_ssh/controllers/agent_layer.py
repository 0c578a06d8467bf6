"""Reads the agent's layer: the sources that run on a notebook."""

from __future__ import annotations

import hashlib
import os
from functools import cache
from pathlib import Path
from typing import NamedTuple

from notebook_ssh.model.worker_program import join_worker

LAYER = "/opt/notebook_agent"
"""Where Lambda unpacks the agent's layer; `NOTEBOOK_AGENT` names another place."""


class WorkerProgram(NamedTuple):
    """The worker of this version, which an agent gets that vouches for its SHA-256."""

    text: str
    sha256: str


def load_worker() -> WorkerProgram:
    """Return the worker in the agent's layer."""
    layer = agent_layer()
    return WorkerProgram(worker_program(layer), worker_sha256(layer))


def agent_layer() -> Path:
    """Return the layer's folder."""
    return Path(os.environ.get("NOTEBOOK_AGENT", LAYER))


@cache
def worker_program(layer: Path) -> str:
    """Return the worker's program, whose SHA-256 is in the block (docs/block.md)."""
    modules = {path.name: path.read_text("utf-8") for path in (layer / "worker").glob("*.py")}
    return join_worker((layer / "loader.py").read_text("utf-8"), modules)


@cache
def worker_sha256(layer: Path) -> str:
    """Return the SHA-256 of the worker's program."""
    return hashlib.sha256(worker_program(layer).encode()).hexdigest()
