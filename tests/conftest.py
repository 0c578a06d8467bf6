"""What holds for every test.

What takes long begins first, and on a build server (CI=true) a skipped test is a failed one. Properties are tried with
the same examples each time, unless a run asks for others (examples.py).
"""

from __future__ import annotations

import os
from collections.abc import Generator
from functools import cache
from typing import Any

import botocore.session
import pytest
from examples import register_profiles
from hypothesis import settings

register_profiles()
settings.load_profile("test")

# Tests make sessions anew, and to read a service's model again takes longer than most of them.
botocore.session.create_loader = cache(botocore.session.create_loader)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests that take minutes begin first: at the end, one worker would run them while the others have nothing to do."""
    items.sort(key=lambda item: item.get_closest_marker("takes_minutes") is None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Generator[None, Any, Any]:
    """Turn a skip into a failure: a check that does not run there runs nowhere."""
    return _no_skip((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, Any, Any]:
    """The same for a whole file, which `pytest.importorskip` and the like skip when it is read."""
    return _no_skip((yield))


def _no_skip(report: Any) -> Any:
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("CI") == "true":
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI does not allow: {report.longrepr}"
    return report
