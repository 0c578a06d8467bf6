"""The functions' tests run under the policies of the functions' roles: a call that is not granted fails the test.

Not in `make quick`, where the evaluator of policies is perhaps not installed (tests/support/granted.py).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any
from unittest.mock import patch

import botocore.client
import pytest
from support.granted import HANDLERS, covering, evaluator_is_installed, requests

TESTS = str(Path(__file__).resolve().parents[1])


def function_at_work() -> str | None:
    """The function in whose handler this call is made; None when a test makes it, be it in the middle of a function."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name in HANDLERS and frame.f_code.co_name == "handle":
            return HANDLERS[name]
        if frame.f_code.co_filename.startswith(TESTS):
            return None
        frame = frame.f_back
    return None


class NotGrantedError(BaseException):
    """Passes through everything that a handler catches."""


@pytest.fixture(scope="session", autouse=True)
def the_roles_policies(pytestconfig: pytest.Config) -> Iterator[None]:
    if not evaluator_is_installed():
        assert pytestconfig.getoption("quick"), (
            "the policies are judged by what `packaging/environments.sh emulator` installs"
        )
        yield
        return
    client: Any = botocore.client.BaseClient  # the method is its own, and the stubs know none of these
    call = client._make_api_call

    def judged(self: Any, operation: str, given: dict[str, Any]) -> Any:
        function = function_at_work()
        if function:
            for request in requests(self.meta.service_model.service_name, operation, given):
                if not covering(function, request):
                    raise NotGrantedError(f"{function} may not {request}")
        return call(self, operation, given)

    with patch.object(client, "_make_api_call", judged):
        yield
