"""The stack's side of every plan: above all the block, made once for each Lambda process."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from notebook_ssh import __version__
from notebook_ssh.controllers.agent_layer import agent_layer, worker_sha256
from notebook_ssh.model.block_program import BlockSettings, render_block
from notebook_ssh.model.managed_block import Block
from notebook_ssh.planning.observation import BlockPolicy
from notebook_ssh.settings import Settings


def load_policy(settings: Settings) -> BlockPolicy:
    """The terms of this stack, with its block."""
    return BlockPolicy(
        tag_key=settings.tag_key,
        default_config=settings.default_config,
        block=_block(settings, agent_layer()),
        upgrade_after=settings.upgrade_after_hours * 3600,
    )


@cache
def _block(settings: Settings, layer: Path) -> Block:
    return render_block(
        frame=(layer / "block.sh").read_text("utf-8"),
        boot=(layer / "boot.py").read_text("utf-8"),
        agent=(layer / "agent.py").read_text("utf-8"),
        settings=BlockSettings(
            stack=settings.stack,
            version=__version__,
            region=settings.region,
            api_url=settings.api_url,
            tag_key=settings.tag_key,
            ngrok_download=settings.ngrok_download,
            ngrok_sha256=settings.ngrok_sha256,
            worker_sha256=worker_sha256(layer),
            install_sshd="yes" if settings.install_sshd else "",
        ),
    )
