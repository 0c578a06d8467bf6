"""ngrok's token in a whole scenario on the local run: it is where it has to be, and nowhere else.

Looked for in the table, the logs, the queues, the tags, the scripts, the API's answers, whatever is on the disk, and in
every command line and environment of this machine while it happens.
"""

from __future__ import annotations

import fnmatch
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import processes
from environment import OWNERS_SCRIPT, LocalEnv

NAME, CONFIGURATION = "keeps-quiet", "keeps-quiet-setup"

MAY_HOLD_IT = (
    "ngrok/token",  # ngrok's cloud, which gave it out
    "notebooks/*/home/ec2-user/SageMaker/.notebook-ssh/ngrok.yml",  # for ngrok's agent, 0600
    "notebooks/*/run/notebook-ssh/worker/*",  # the last answer, 0600, gone with the notebook's stop
)
"""Files below the local run's folder."""


class Looker(threading.Thread):
    """Looks at every process of the machine, over and over. found: the command lines or environments with `secret`."""

    def __init__(self, secret: bytes) -> None:
        super().__init__(daemon=True)
        self.secret, self.found, self.looks, self.over = secret, set[str](), 0, threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.05):
            self.looks += 1
            for process in Path("/proc").glob("[0-9]*"):
                for part in ("cmdline", "environ"):
                    self._look(process / part)

    def _look(self, path: Path) -> None:
        try:
            told = path.read_bytes()
        except OSError:  # it has ended, or is another user's
            return
        if self.secret in told:
            self.found.add(f"{path.name}: {told[:200]!r}")


@contextmanager
def looking_at_processes(secret: str) -> Iterator[Looker]:
    looker = Looker(secret.encode())
    looker.start()
    try:
        yield looker
    finally:
        looker.over.set()
        looker.join()


def everything_in_aws(env: LocalEnv, stack: str) -> Iterator[tuple[str, str]]:
    """What is kept in the account, with its place."""
    client = env.emulator.client
    pages = client("dynamodb").get_paginator("scan").paginate(TableName=env.stack.outputs["TableName"])
    yield "table", repr([item for page in pages for item in page["Items"]])
    logs = client("logs")
    for group in logs.describe_log_groups()["logGroups"]:
        streams = logs.get_paginator("describe_log_streams").paginate(logGroupName=group["logGroupName"])
        for stream in (stream for page in streams for stream in page["logStreams"]):
            where = {"logGroupName": group["logGroupName"], "logStreamName": stream["logStreamName"]}
            yield f"log {where['logGroupName']} {where['logStreamName']}", repr(logs.get_log_events(**where)["events"])
    for queue in client("sqs").list_queues().get("QueueUrls", []):
        waiting = client("sqs").receive_message(QueueUrl=queue, MaxNumberOfMessages=10, VisibilityTimeout=0)
        yield f"queue {queue}", repr(waiting.get("Messages"))
    yield "functions", repr(client("lambda").list_functions()["Functions"])
    yield "template", repr(client("cloudformation").describe_stacks(StackName=stack)["Stacks"])
    yield "tags", repr(env.tags(NAME))
    yield "script", env.on_start(CONFIGURATION).decode("latin-1")
    for path in ("/notebooks", "/ssh-config", "/known-hosts", f"/notebooks/{NAME}", f"/notebooks/{NAME}/doctor"):
        yield path, env.curl(path).body


def files_with(folder: Path, secret: bytes) -> set[str]:
    found = set()
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and secret in path.read_bytes():
            found.add(str(path.relative_to(folder)))
    return found


def test_the_token_is_nowhere_but_where_it_is_needed(env: LocalEnv) -> None:
    token = env.cloud.token
    with looking_at_processes(token) as looker:
        scenario(env)
    assert looker.looks > 10
    assert looker.found == set()
    seen = dict[str, Any](everything_in_aws(env, env.stack.name))
    assert NAME in seen["table"]
    assert any("RequestId" in text for place, text in seen.items() if place.startswith("log ")), "no log was read"
    assert [place for place, text in seen.items() if token in text] == []
    held = files_with(env.emulator.home, token.encode())
    assert any("ngrok.yml" in path for path in held), "the notebook has no token, so nothing is shown here"
    assert [path for path in held if not any(fnmatch.fnmatch(path, each) for each in MAY_HOLD_IT)] == []
    assert [path for path in held if (env.emulator.home / path).stat().st_mode & 0o077 and "notebooks/" in path] == []


def test_a_token_among_a_programs_arguments_would_be_found() -> None:
    for words, environment in ((["secret-word"], {}), ([], {"TOKEN": "secret-word"})):
        with looking_at_processes("secret-word") as looker:
            waiting = [sys.executable, "-c", "input()", *words]
            program = subprocess.Popen(waiting, env=environment, stdin=subprocess.PIPE)
            processes.wait_until("it was looked at", lambda: bool(looker.found))
            program.communicate(b"\n")


def scenario(env: LocalEnv) -> None:
    """Tag, stop, start, connect, log in."""
    env.create_lifecycle_config(CONFIGURATION, OWNERS_SCRIPT)
    env.create_notebook(NAME, CONFIGURATION)
    until(env, "it runs", lambda: env.state(NAME) == "InService")
    env.leave_key(NAME)
    env.tag(NAME, ssh="ngrok")
    until(env, "its script has the block", lambda: env.on_start(CONFIGURATION) != OWNERS_SCRIPT)
    env.sagemaker.stop_notebook_instance(NotebookInstanceName=NAME)
    until(env, "it has stopped", lambda: env.state(NAME) == "Stopped")
    env.sagemaker.start_notebook_instance(NotebookInstanceName=NAME)
    until(env, "it is connected", lambda: env.status(NAME) == "connected")
    env.save_ssh_config(NAME)
    assert env.ssh(NAME, "true").returncode == 0


def until(env: LocalEnv, what: str, condition: Any) -> None:
    processes.wait_until(what, condition, alive=env.emulator.alive)
