"""What tests need of their machine beyond Python. Where it is missing they are skipped with a sentence that says what to do.

In CI a skipped test has failed (conftest.py). Nothing here is asked while tests are collected: which tests there are does
not depend on the machine.
"""

from __future__ import annotations

import os
import shutil

import pytest


def program(name: str) -> str:
    """The path of a program that packaging/tools.sh installs."""
    path = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if path is None:
        pytest.skip(f"needs {name}, which `packaging/tools.sh {name}` installs")
    return path
