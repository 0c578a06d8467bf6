"""moto without what nobody here asks it for, which would take longer to read than all the rest."""

from __future__ import annotations

from typing import Any

from moto.utilities import utils

_INSTANCE_TYPES = "ec2/resources/instance_type"
"""How the files with EC2's instance types begin, and those with the places where each is offered."""


def leave_out_instance_types() -> None:
    """Let EC2 have no instance types, if it is imported after this: networks have none."""
    read = utils.load_resource

    def load_resource(resource: str) -> Any:
        return {} if _INSTANCE_TYPES in resource else read(resource)

    utils.load_resource = load_resource
