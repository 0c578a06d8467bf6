"""Which block a stack with this environment puts into scripts."""

from __future__ import annotations


def main() -> None:
    """Print its mark."""
    from notebook_ssh.controllers.block_policy import load_policy
    from notebook_ssh.settings import read_settings

    print(load_policy(read_settings()).block_ref)
