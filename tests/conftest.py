"""What holds for every test.

`make test` runs each behaviour once, with the same examples each time (examples.py). --quick leaves out what is `slow`;
--nightly adds what is `nightly`. What takes long begins first, and on a build server (CI=true) a skipped test has failed.
"""

from __future__ import annotations

import gc
import os
import re
import signal
import sys
from collections.abc import Generator
from functools import cache
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from hypothesis import settings
from support.examples import register_profiles
from support.outlived import kill_all_when_killed

TESTS = Path(__file__).resolve().parent

WAITING = {"integration", "agent", "client", "verify"}
"""The folders whose tests wait for other processes: next to them there is time for those that compute."""

IN_ONE_ACCOUNT = {
    f"tests/integration/test_{name}.py"
    for name in (
        "api_contract",
        "api_description",
        "client_local",
        "emulator_limits",
        "event_path",
        "faults",
        "local_api",
        "token_confinement",
    )
}
"""The files whose tests use the account of tests/integration/conftest.py."""

# What takes longer than most tests, and is the same for each: to read a service's model, and to make up 1,300 images.
botocore.session.create_loader = cache(botocore.session.create_loader)
os.environ["MOTO_EC2_LOAD_DEFAULT_AMIS"] = "false"

# What a shell starts in the background ignores SIGINT (POSIX.1, 2.11), and so does all that it starts: what the tests
# interrupt would never end.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """The two other ways to run the tests (CONTRIBUTING.md)."""
    parser.addoption("--quick", action="store_true", help="without slow tests, and with fewer examples")
    parser.addoption("--nightly", action="store_true", help="with the nightly tests too, and with many more examples")


@pytest.hookimpl(trylast=True)  # when there is a folder for temporary files
def pytest_configure(config: pytest.Config) -> None:
    """Choose how thoroughly properties are tried, before the tests are read, and let no process outlive them."""
    register_profiles()
    settings.load_profile(next((run for run in ("quick", "nightly") if config.getoption(run)), "test"))
    if sys.platform == "linux" and not hasattr(config, "workerinput"):
        temporary: Any = config._tmp_path_factory  # type: ignore[attr-defined]  # as pytest-xdist takes it
        config.add_cleanup(kill_all_when_killed(temporary.getbasetemp()))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what this run is not for, and let the files that take long begin, or one worker would end with them."""
    unwanted = {"slow": config.getoption("quick"), "nightly": not config.getoption("nightly")}
    left_out = []
    for item in items:
        for marker in item.iter_markers("nightly"):
            _hold_to_daily_sibling(item, marker)
        if any(unwanted[marker.name] for marker in item.iter_markers() if marker.name in unwanted):
            left_out.append(item)
    items[:] = [item for item in items if item not in left_out]
    longest = {item.path for item in items if item.get_closest_marker("takes_minutes")}
    items.sort(key=lambda item: (item.path not in longest, not WAITING & set(item.path.parts)))
    config.hook.pytest_deselected(items=left_out)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With --dist loadfile, let one worker have all that use one account: each worker would make one of its own."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    scheduler: Any = LoadFileScheduling(config, log)
    file_of = scheduler._split_scope
    scheduler._split_scope = lambda test: "one account" if file_of(test) in IN_ONE_ACCOUNT else file_of(test)
    return scheduler


def pytest_collection_finish() -> None:
    """Let the garbage collector pass over what was imported: it took a sixth of the processor's time (gc.freeze)."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def _hold_to_daily_sibling(item: pytest.Item, marker: pytest.Mark) -> None:
    """A test that runs at night alone names one of each day that holds the same behaviour."""
    place, _, name = str(marker.kwargs.get("sibling")).rpartition("::")
    path = TESTS.parent / place if place else item.path
    if not path.is_file() or not re.search(rf"^ *def {re.escape(name)}\(", path.read_text(), re.MULTILINE):
        raise pytest.UsageError(f"{item.nodeid}: @pytest.mark.nightly(sibling=…) names no test: {place}::{name}")


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
