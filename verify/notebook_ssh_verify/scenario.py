"""The scenario of a run: what a user and an admin do, from the tag to the uninstallation, and what must come of it."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

from notebook_ssh_verify.account import AwsError
from notebook_ssh_verify.findings import Step
from notebook_ssh_verify.lab import Lab
from notebook_ssh_verify.laptop import Laptop

REACTION_LIMIT_S = 300.0
"""Seconds for the stack to react: without tag events and CloudTrail that is the next sweep, of two minutes here."""

START_LIMIT_S = 1200.0
"""Seconds for a notebook to stop and start: some minutes, or more where its type is scarce."""

LOGIN_LIMIT_S = 120.0
"""Seconds in which a login must work: right after a start, the client's own message says to try again in a minute."""

BLOCK = b"notebook-ssh"
"""What every block has and the run's own scripts have not (docs/block.md)."""

CONNECTABLE = ("connected", "ready")


class ProblemError(Exception):
    """A step did not end as it must; the message says how it ended."""


class Scenario:
    """The steps, in their order. Each is told as it ends; one that fails does not end the run, what depends on it is skipped.

    mode: the value of the tag, or "" where the account has no path for ssh: then the steps until the report are made.
    scripts: what each configuration had before, by its name.
    """

    def __init__(
        self, lab: Lab, laptop: Laptop, mode: str, scripts: dict[str, bytes], tell: Callable[[Step], None]
    ) -> None:
        self.lab, self.laptop, self.mode, self.scripts = lab, laptop, mode, scripts
        self._tell = tell
        self.notebook = lab.notebooks[0]
        self.config = next(iter(scripts))
        self._session_works = False

    def until_report(self) -> None:
        """Tag the notebook, let the stack restart it, and look it up."""
        if not self._step(f"tag {self.lab.run.tag_key}={self.mode or 'ngrok'}", lambda: self._tag(0)):
            return
        if self._step("the stack restarts the notebook, which its tag requests", self._restart_by_tag):
            self._step("curl looks it up", self._look_up)
            self._log_in("ssh logs in by its name, and its host key is verified")

    def again(self) -> None:
        """Stop and start it as a user does: the address may change, the name does not."""
        if self._step("a user stops and starts the notebook", self._restart):
            self._log_in("ssh logs in by the same name")

    def untag(self) -> None:
        """Remove the tag: the script is as it was, byte for byte."""
        self._step("the tag is removed, and the script is as it was, byte for byte", self._untag)

    def tag_another(self) -> None:
        """Tag the second notebook, if there is one, so that the uninstallation has something to undo."""
        if len(self.lab.notebooks) > 1:
            self._step("another notebook is tagged", lambda: self._tag(1))

    def uninstalled(self, problem: str | None) -> None:
        """Compare the scripts after the stack was deleted. problem: why it was not."""

        def compare() -> str:
            if problem:
                raise ProblemError(problem)
            for name, script in self.scripts.items():
                if self._script(name) != script:
                    raise ProblemError(f"the on-start script of {name} is not as it was")
            return f"{len(self.scripts)} scripts are as they were, byte for byte"

        self._step("the stack is uninstalled while a notebook has the tag", compare)

    # ---- steps ---------------------------------------------------------------------------------

    def _step(self, what: str, act: Callable[[], str]) -> bool:
        try:
            step = Step(what, act())
        except (ProblemError, AwsError) as error:
            step = Step(what, "", str(error))
        self._tell(step)
        return step.problem is None

    def _log_in(self, what: str) -> None:
        if not self.mode:
            step = Step(what, "there is neither an endpoint nor an ngrok token", skipped=True)
        elif self.laptop.missing:
            step = Step(what, f"not on this machine: {', '.join(self.laptop.missing)}", skipped=True)
        else:
            self._step(what, self._ssh)
            return
        self._tell(step)

    def _tag(self, number: int) -> str:
        notebook, config = self.lab.notebooks[number], list(self.scripts)[number]
        key = self.lab.run.tag_key
        tags = [{"Key": key, "Value": self.mode or "ngrok"}, {"Key": f"{key}-restart", "Value": "now"}]
        self.lab.account.call("sagemaker", "add_tags", ResourceArn=self._arn(notebook), Tags=tags)
        if not self.lab.wait(lambda: BLOCK in self._script(config), REACTION_LIMIT_S):
            raise ProblemError(f"after {REACTION_LIMIT_S:.0f} s the script of {config} has no block")
        return f"the block is in the script of {config}"

    def _restart_by_tag(self) -> str:
        status = self._wait_for_status(CONNECTABLE if self.mode else (), START_LIMIT_S)
        return f"its status is {status}"

    def _restart(self) -> str:
        before = self._reported_at()
        name = self.notebook
        for method, state in (("stop_notebook_instance", "Stopped"), ("start_notebook_instance", "InService")):
            self.lab.account.call("sagemaker", method, NotebookInstanceName=name)
            if not self.lab.wait(lambda state=state: self.lab.state(name) == state, START_LIMIT_S):  # type: ignore[misc]
                raise ProblemError(f"it is {self.lab.state(name)}, not {state}")
        if not self.lab.wait(lambda: self._reported_at() not in (None, before), REACTION_LIMIT_S):
            raise ProblemError("it did not report after its start")
        return f"its status is {self._wait_for_status(CONNECTABLE if self.mode else (), REACTION_LIMIT_S)}"

    def _look_up(self) -> str:
        answer = self.laptop.curl(f"{self.lab.stack['ApiUrl']}/notebooks/{self.notebook}/ssh")
        if self.mode and answer.status != 200:
            raise ProblemError(f"the API answered {answer.status}: {answer.body[:200]}")
        return (
            answer.body.strip()[:200]
            if answer.status == 200
            else f"the API answered {answer.status}, as without a path"
        )

    def _ssh(self) -> str:
        if not self._session_works:
            problem = self.laptop.set_up(self.lab.stack_name, self.lab.stack["ApiUrl"])
            if problem:
                raise ProblemError(f"the client's setup failed: {problem}")
            self._session_works = True
        last = ""

        def logged_in() -> str | None:
            nonlocal last
            done = self.laptop.ssh(self.notebook, "echo logged in as $(whoami)")
            last = f"ssh ended with {done.returncode}: {done.stderr.strip()[-300:]}"
            return done.stdout.strip() if done.returncode == 0 and "logged in as" in done.stdout else None

        found = self.lab.wait(logged_in, LOGIN_LIMIT_S)
        if found is None:
            raise ProblemError(last)
        return found

    def _untag(self) -> str:
        self.lab.account.call(
            "sagemaker", "delete_tags", ResourceArn=self._arn(self.notebook), TagKeys=[self.lab.run.tag_key]
        )
        if not self.lab.wait(lambda: self._script(self.config) == self.scripts[self.config], REACTION_LIMIT_S):
            raise ProblemError(f"after {REACTION_LIMIT_S:.0f} s the script of {self.config} is not as it was")
        return f"{len(self.scripts[self.config])} bytes"

    # ---- what they see -------------------------------------------------------------------------

    def _arn(self, name: str) -> str:
        return str(self.lab.describe_notebook(name)["NotebookInstanceArn"])

    def _script(self, config: str) -> bytes:
        answer = self.lab.account.client("sagemaker").describe_notebook_instance_lifecycle_config(
            NotebookInstanceLifecycleConfigName=config
        )
        hooks = answer.get("OnStart") or [{"Content": ""}]
        return base64.b64decode(hooks[0]["Content"])

    def _told(self) -> dict[str, Any]:
        told = self.laptop.curl(f"{self.lab.stack['ApiUrl']}/notebooks/{self.notebook}").json()
        return told if isinstance(told, dict) else {}

    def _reported_at(self) -> str | None:
        return self._told().get("reported_at")

    def _wait_for_status(self, wanted: tuple[str, ...], limit_s: float) -> str:
        """Wait for one of the statuses, or without a path for any report. Returns the status."""

        def seen() -> str | None:
            told = self._told()
            status = str(told.get("status", ""))
            return status if (status in wanted if wanted else bool(told.get("reported_at"))) else None

        status = self.lab.wait(seen, limit_s)
        if status is None:
            told = self._told()
            raise ProblemError(
                f"after {limit_s:.0f} s its status is {told.get('status')}: {told.get('message')} {told.get('next_step')}"
            )
        return status
