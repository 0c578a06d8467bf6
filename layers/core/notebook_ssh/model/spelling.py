"""How a request must spell a notebook's name: IAM compares the path as it was sent, and the table is case-insensitive.

A policy that names a notebook would otherwise be got past with other capitals, or, UNCONFIRMED(path-as-sent), with
escapes or a slash at the end.
"""

from __future__ import annotations

import re

OTHER_SPELLING = "other-spelling"
"""The code of docs/api.md."""

_BASE_PATH = re.compile(r"(?:/(?!\.\.?(?:/|$))[A-Za-z0-9._-]+)*")
"""What a custom domain may put in front: no step that leads elsewhere, and nothing escaped."""


def is_spelled(path: str, route: str, notebook: str) -> bool:
    """Return whether `path`, as it was sent, is `route` with the notebook's name as SageMaker spells it.

    route: `/notebooks/{name}/…`, below the base path of a custom domain or none.
    """
    tail = route.replace("{name}", notebook)
    return path.endswith(tail) and _BASE_PATH.fullmatch(path.removesuffix(tail)) is not None


def other_spelling(notebook: str) -> str:
    """Return the sentence for a request that spells the name otherwise."""
    return (
        f"The notebook's name is {notebook}: ask for it with these capitals, and without escapes or a slash at the end."
    )
