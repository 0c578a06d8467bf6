"""Prepares ngrok and becomes it: the child `tunnel` of the worker."""

from __future__ import annotations

import os
import re

from agent import write_text
from worker.files import describe_os_error, read_all
from worker.model import AgentError, Json
from worker.ngrok_config import configure_ngrok
from worker.ngrok_program import emit, install_ngrok
from worker.paths import NGROK_DIR


def run_tunnel(request: Json) -> None:
    """Prepare ngrok and replace this process by it; errors are emitted on standard output."""
    os.dup2(1, 2)
    os.close(3)  # the agent's log, which ngrok must not hold open
    try:
        os.makedirs(NGROK_DIR, 0o700, exist_ok=True)
        program = install_ngrok(request["force_install"])
        path = NGROK_DIR + "config.yml"
        before = read_all(path)
        text = configure_ngrok(before, request["token"], request["url"], request["port"])
        if not re.search(r"(?m)^ *authtoken: *\S", text):
            message = "there is no ngrok token yet: an admin stores it in the stack's secret"
            raise AgentError("ngrok-token-missing", message)
        if text != before or os.stat(path).st_mode & 0o77:
            write_text(path, text, 0o600)
        address = re.search(r"(?m)^ *web_addr: *(\S+)", text)
        emit("starting web service", addr=address and address[1])
        os.execv(program, ["ngrok", "start", "--all", "--config", path, "--log=stdout", "--log-format=json"])
    except OSError as error:
        emit("problem", agent_problem=["files", describe_os_error(error, NGROK_DIR)])
    except AgentError as error:
        emit("problem", agent_problem=error.args)
