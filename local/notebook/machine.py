"""A simulated notebook instance: a directory that plays its disk, and processes that play the rest.

The on-start script is run as SageMaker runs it: really, by the interpreter that its first line names, with five
minutes and an exit status that counts. Only paths differ: the instance's disk is a directory (NOTEBOOK_SSH_ROOT).
Everything a notebook starts is below one process (`init.py`) and ends with it.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import IO, cast

import processes

LOCAL = Path(__file__).resolve().parent.parent

API_NAME = re.compile(rb"https://([a-z0-9]+)\.execute-api\.[a-z0-9.-]+/([A-Za-z0-9_]+)")
"""An API's address as API Gateway gives it: its id and its stage."""


class BootFailedError(Exception):
    """The instance did not start; the sentence is its FailureReason."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """A session of a role. expires: epoch seconds."""

    key: str
    secret: str
    token: str
    expires: float


@dataclass(frozen=True, slots=True)
class Boot:
    """What `init.py` is told on its standard input, as one line of JSON.

    answers: to facts that are not confirmed (`emulator.answers`). other_role: what the metadata service lists in place of
    the role, and the credentials that it has under that name. disk: the directory that plays `/`. port: sshd's. python: what the agent runs on. script: base64 of the on-start script, or None. api: the API's address here.
    """

    name: str
    arn: str
    role: str
    disk: str
    port: int
    log: str
    python: str
    script: str | None
    endpoint: str
    api: str | None
    region: str
    credentials: Credentials
    other_role: tuple[str, Credentials] | None = None
    answers: Mapping[str, str] = field(default_factory=dict)


OTHER_ROLE = "BaseNotebookInstanceEc2InstanceRole"
"""A role of SageMaker's own."""


class Machine:
    """One instance, over all its starts. `home` is its own directory, made when missing."""

    def __init__(self, name: str, arn: str, home: Path) -> None:
        self.name, self.arn, self.home = name, arn, home
        self.disk = home / "disk"
        self.port = processes.free_port()
        """sshd's port on 127.0.0.1: the same at every start, as 22 is on an instance."""
        self._log, self._log_start = home / "LifecycleConfigOnStart.log", 0
        self._init: subprocess.Popen[bytes] | None = None

    def boot(
        self,
        script: bytes | None,
        endpoint: str,
        apis: str,
        region: str,
        role: str,
        credentials: Callable[[str], Credentials],
        answers: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Start with a fresh disk but for the volume, and run `script` to its end.

        apis: the address before an API's. answers: as in `Boot`, those that are not the first ones. Raises BootFailedError when the script fails or takes longer than SageMaker allows.
        """
        self.shut_down()
        self._renew_disk()
        self._log_start = self._log.stat().st_size if self._log.exists() else 0
        own = credentials(role)
        told = Boot(
            name=self.name,
            arn=self.arn,
            role=role.rpartition("/")[2],
            disk=str(self.disk),
            port=self.port,
            log=str(self._log),
            python=str(self.python),
            script=base64.b64encode(script).decode() if script is not None else None,
            endpoint=endpoint,
            api=_api_of(script or b"", apis),
            region=region,
            credentials=own,
            other_role=_other_role(answers, role, own, credentials),
            answers=dict(answers),
        )
        if failure := self._run_init(told):
            self.shut_down()
            raise BootFailedError(failure)

    def script_output(self) -> bytes:
        """What the on-start script of the last start printed."""
        if not self._log.exists():
            return b""
        with open(self._log, "rb") as log:
            log.seek(self._log_start)
            return log.read()

    def _run_init(self, told: Boot) -> str | None:
        """Start the notebook's first process and return why it did not come up, if so."""
        path = self.home / "machine.log"
        with open(path, "ab") as log:
            before = log.tell()
            self._init = subprocess.Popen(
                [sys.executable, "-X", "utf8", "-m", "notebook.init"],
                cwd=LOCAL,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        # Popen knows no type for pipes that are there.
        to_init, from_init = cast(IO[bytes], self._init.stdin), cast(IO[bytes], self._init.stdout)
        with contextlib.suppress(BrokenPipeError):  # it has ended; its log says why
            to_init.write(json.dumps(asdict(told)).encode() + b"\n")
            to_init.flush()
        answer = from_init.readline()
        if not answer:
            return f"the notebook's first process ended at its start{processes.last_words(path, before)}"
        return cast("str | None", json.loads(answer)["failure"])

    def _renew_disk(self) -> None:
        """Only the volume, /home/ec2-user/SageMaker, outlives a stop."""
        volume, kept = self.disk / "home/ec2-user/SageMaker", self.home / "volume"
        if volume.exists():
            volume.rename(kept)
        shutil.rmtree(self.disk, ignore_errors=True)
        volume.parent.mkdir(parents=True)
        if kept.exists():
            kept.rename(volume)
        else:
            volume.mkdir()

    @property
    def python(self) -> Path:
        """The interpreter of this notebook: one of its own (`LocalEnv.set_clock`), or else this one."""
        own = self.home / "python/bin/python"
        return own if own.exists() else Path(sys.executable)

    def shut_down(self) -> None:
        """End every process of this notebook; returns when none is left."""
        init, self._init = self._init, None
        if init is not None:
            processes.dismiss(init, patience=15)

    def erase(self) -> None:
        """Shut down and forget everything, the volume too."""
        self.shut_down()
        shutil.rmtree(self.home, ignore_errors=True)


def _other_role(
    answers: Mapping[str, str], role: str, own: Credentials, credentials: Callable[[str], Credentials]
) -> tuple[str, Credentials] | None:
    match answers.get("imds-role"):
        case "other-name":
            return OTHER_ROLE, own
        case "other-credentials":
            return OTHER_ROLE, credentials(f"{role.partition('/')[0]}/{OTHER_ROLE}")
    return None


def _api_of(script: bytes, apis: str) -> str | None:
    """The local address of the API that `script` names: this stands in for the DNS of API Gateway's host names."""
    found = API_NAME.search(script)
    return f"{apis}/_aws/execute-api/{found[1].decode()}/{found[2].decode()}" if found else None
