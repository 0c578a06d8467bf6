"""What a run has in the account: the stack under test, the lab's own stack, and two notebooks. Experiments use it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from notebook_ssh_verify.account import Account
from notebook_ssh_verify.journal import Journal
from notebook_ssh_verify.ownership import RUN_TAG, Created, Kind, Run
from notebook_ssh_verify.probe import Probes

T = TypeVar("T")

EVENT_LIMIT_S = 180.0
"""Seconds after which an event counts as not sent, unless the user says otherwise. CloudTrail's take some minutes at
times, which is what a second run tells."""

POLL_S = 1.0


class TimeOverError(Exception):
    """The user's limit of time is reached."""


@dataclass
class Lab:
    """What experiments use. Without a lab of its own (`--without-cost`, `--stack`) most of it is empty.

    outputs: of the lab's stack (lab.yaml). stack: outputs of the stack under test, empty without one; its name is
    stack_name. notebooks: names of the run's notebooks, the first in the VPC if there is one. probes: what the first
    notebook's on-start script printed. event_limit_s: see EVENT_LIMIT_S. ngrok_token: a secret. ends: when the user's limit of
    time is reached, as time.monotonic() counts.
    """

    account: Account
    run: Run
    journal: Journal | None = None
    outputs: Mapping[str, str] = field(default_factory=dict)
    stack_name: str = ""
    stack: Mapping[str, str] = field(default_factory=dict)
    notebooks: tuple[str, ...] = ()
    probes: Probes = field(default_factory=Probes)
    event_limit_s: float = EVENT_LIMIT_S
    ends: float = math.inf
    ngrok_token: str = field(default="", repr=False)
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def tags(self) -> list[dict[str, str]]:
        """The tag of the run, as most services take it."""
        return [{"Key": RUN_TAG, "Value": self.run.id}]

    def creating(self, kind: Kind, name: str) -> None:
        """Write down what is about to be created. Raises JournalError, and RuntimeError where nothing may be created."""
        if self.journal is None:
            raise RuntimeError(f"this run creates nothing, and was about to create {name}")
        self.journal.note(Created(kind, name))

    def wait(self, seen: Callable[[], T | None], limit_s: float) -> T | None:
        """Return the first value that `seen` returns that is not None or False; None after `limit_s` seconds.

        Raises TimeOverError.
        """
        ends = time.monotonic() + limit_s
        while True:
            value = seen()
            if value is not None and value is not False:
                return value
            self.check_time()
            if time.monotonic() > ends:
                return None
            time.sleep(POLL_S)

    def check_time(self) -> None:
        """Raise TimeOverError if the user's limit of time is reached."""
        if time.monotonic() > self.ends:
            raise TimeOverError

    def describe_notebook(self, name: str) -> dict[str, Any]:
        """Return what SageMaker says of a notebook, which is no evidence. Raises botocore's ClientError."""
        answer: dict[str, Any] = self.account.client("sagemaker").describe_notebook_instance(NotebookInstanceName=name)
        return answer

    def state(self, name: str) -> str:
        """Return SageMaker's status of a notebook. Raises botocore's ClientError."""
        return str(self.describe_notebook(name)["NotebookInstanceStatus"])
