"""The computers behind SageMaker's statuses: what is Pending boots, what is Stopping shuts down.

A notebook becomes InService when its on-start script has ended well, and Failed when it has not, as on AWS.
"""

from __future__ import annotations

import base64
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from moto.sagemaker.exceptions import ValidationError

from emulator import answers, sagemaker
from emulator.network import Gate
from notebook.machine import BootFailedError, Credentials, Machine

TRANSITION_SECONDS = 1.0
"""The least time that any transition takes, so that people see it."""

MAINTENANCE_SECONDS = 2.0
"""The time that each of the two states of a maintenance takes, so that who looks once a second sees it."""

logger = logging.getLogger("hardware")


class Hardware:
    """All notebooks of one account and region.

    home: an existing directory that holds one directory for each notebook.
    endpoint: the emulator's address. api: where notebooks reach APIs. credentials: makes a session of a role, given its ARN.
    deliver: takes a notebook's name and what its on-start script printed.
    boots: whether there is a machine behind a status; without, transitions only take their time.
    """

    def __init__(
        self,
        account: str,
        region: str,
        home: Path,
        endpoint: str,
        api: str,
        credentials: Callable[[str], Credentials],
        deliver: Callable[[str, bytes], None],
        *,
        boots: bool = True,
    ) -> None:
        self.account, self.region, self.home, self.endpoint = account, region, home, endpoint
        self.api = api
        self.credentials, self.deliver, self.boots = credentials, deliver, boots
        self.machines: dict[str, Machine] = {}
        self.gates: dict[str, Gate] = {}
        self.busy: set[str] = set()
        self.maintained: set[str] = set()

    def start(self) -> None:
        """Begin to watch the notebooks, in a thread of its own."""
        threading.Thread(target=self._watch, name="hardware", daemon=True).start()

    def _watch(self) -> None:
        work = {"Pending": self._boot, "Stopping": self._shut_down, "Updating": self._update, "Deleting": self._delete}
        while True:
            for notebook in sagemaker.notebooks(self.account, self.region):
                name = notebook.notebook_instance_name
                if name in self.busy:
                    continue
                if notebook.status in work:
                    self._begin(self._do, work[notebook.status], notebook)
                elif notebook.status == "InService" and self._is_due_for_maintenance(name):
                    self._begin(self._maintain, notebook)
            time.sleep(0.05)

    def _begin(self, work: Callable[..., None], *arguments: Any) -> None:
        """Work in a thread, during which the last of the arguments, a notebook, is busy."""
        self.busy.add(arguments[-1].notebook_instance_name)
        threading.Thread(target=work, args=arguments, daemon=True).start()

    def _is_due_for_maintenance(self, name: str) -> bool:
        """Once for each notebook, until the answer was that there is no maintenance."""
        if answers.of("maintenance-states") == "none":
            self.maintained.clear()
            return False
        is_due = name not in self.maintained
        self.maintained.add(name)
        return is_due

    def _maintain(self, notebook: sagemaker.Notebook) -> None:
        try:
            ends = answers.of("maintenance-states") == "ends"
            for status in ("PendingMaintenance", "InMaintenance"):
                notebook.enter(status)
                time.sleep(MAINTENANCE_SECONDS)
            if ends:
                self._shut_down(notebook)
                self._boot(notebook)
            notebook.enter("InService")
        except BootFailedError as failure:
            notebook.fail(str(failure))
        finally:
            self.busy.discard(notebook.notebook_instance_name)

    def _do(self, work: Callable[[sagemaker.Notebook], None], notebook: sagemaker.Notebook) -> None:
        started = time.monotonic()
        try:
            work(notebook)
            time.sleep(max(0.0, started + TRANSITION_SECONDS - time.monotonic()))
            notebook.advance()
            _ = notebook.status  # reading it moves it on and tells the listeners
        except BootFailedError as failure:
            notebook.fail(str(failure))
        except Exception as error:
            logger.exception("the simulated notebook %s", notebook.notebook_instance_name)
            notebook.fail(f"the simulation broke: {type(error).__name__}: {error}")
        finally:
            self.busy.discard(notebook.notebook_instance_name)

    def _boot(self, notebook: sagemaker.Notebook) -> None:
        if not self.boots:
            return
        name = notebook.notebook_instance_name
        machine = self.machines.setdefault(name, Machine(name, notebook.arn, self.home / name.lower()))
        script = self._on_start(notebook)
        try:
            machine.boot(
                script, self.endpoint, self.api, self.region, notebook.role_arn, self.credentials, answers.given()
            )
        finally:
            self.deliver(name, machine.script_output())
        if notebook.interface:
            self.gates[name] = Gate(
                self.account, self.region, notebook.interface, machine, self.home.parent / "private_ports"
            )

    def _on_start(self, notebook: sagemaker.Notebook) -> bytes | None:
        if not notebook.lifecycle_config_name:
            return None
        name = notebook.lifecycle_config_name
        try:
            hooks = sagemaker.configuration(self.account, self.region, name).on_start
        except ValidationError:  # deleted while it was attached
            raise BootFailedError(f"Notebook Instance Lifecycle Config {name} does not exist") from None
        return base64.b64decode(hooks[0]["Content"]) if hooks else None

    def _shut_down(self, notebook: sagemaker.Notebook) -> None:
        gate = self.gates.pop(notebook.notebook_instance_name, None)
        if gate:
            gate.close()
        machine = self.machines.get(notebook.notebook_instance_name)
        if machine:
            machine.shut_down()

    def _update(self, notebook: sagemaker.Notebook) -> None:
        """Nothing but time passes: the settings are in place already."""

    def _delete(self, notebook: sagemaker.Notebook) -> None:
        machine = self.machines.pop(notebook.notebook_instance_name, None)
        if machine:
            machine.erase()
