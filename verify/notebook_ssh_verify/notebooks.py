"""What experiments do with a notebook of the run, and undo."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from notebook_ssh_verify.account import AwsError, Refusal
from notebook_ssh_verify.lab import Lab

STATUS_LIMIT_S = 1200.0
"""Seconds until a notebook must have started or stopped. It takes some minutes."""


@contextmanager
def undone(undo: Callable[[], object]) -> Iterator[None]:
    """Undo at the end, after an error too; but not once the run is interrupted, since it deletes everything then."""
    try:
        yield
    except Exception:
        undo()
        raise
    undo()


@contextmanager
def stopped(lab: Lab, notebook: str) -> Iterator[None]:
    """Have a notebook of the run Stopped while inside, and then InService if it was. Raises AwsError."""
    if _status(lab, notebook) != "InService":
        yield
        return
    lab.account.call("sagemaker", "stop_notebook_instance", NotebookInstanceName=notebook)
    wait_for_status(lab, notebook, "Stopped")

    def start() -> None:
        if _status(lab, notebook) in ("Stopped", "Failed"):
            lab.account.call("sagemaker", "start_notebook_instance", NotebookInstanceName=notebook)
        wait_for_status(lab, notebook, "InService")

    with undone(start):
        yield


@contextmanager
def attached_config(lab: Lab, notebook: str, config: str) -> Iterator[None]:
    """Have a lifecycle configuration attached to a Stopped notebook of the run while inside, and then the one from before.

    Raises AwsError.
    """
    before = lab.describe_notebook(notebook).get("NotebookInstanceLifecycleConfigName")
    change = {"LifecycleConfigName": before} if before else {"DisassociateLifecycleConfig": True}
    _update(lab, notebook, LifecycleConfigName=config)
    with undone(lambda: _update(lab, notebook, **change)):
        yield


def wait_for_status(lab: Lab, notebook: str, *wanted: str) -> str:
    """Return the status that a notebook of the run has once it is one of these. Raises AwsError if it does not get there."""

    def settled() -> str | None:
        status = _status(lab, notebook)
        return status if status in (*wanted, "Failed") else None

    status = lab.wait(settled, STATUS_LIMIT_S)
    if status not in wanted:
        seen = f"{notebook} is {status or _status(lab, notebook)} and not {' or '.join(wanted)}"
        raise AwsError("sagemaker:DescribeNotebookInstance", Refusal("NotReached", seen, 200))
    return str(status)


def _update(lab: Lab, notebook: str, **change: Any) -> None:
    lab.account.call("sagemaker", "update_notebook_instance", NotebookInstanceName=notebook, **change)
    wait_for_status(lab, notebook, "Stopped")


def _status(lab: Lab, notebook: str) -> str:
    return str(lab.describe_notebook(notebook)["NotebookInstanceStatus"])
