"""Prepares ngrok and becomes it: the child `tunnel` of the worker."""

from __future__ import annotations

import json
import os

from agent import PERSIST_DIR, load_json
from worker.files import explain_os_error, read_all, write_file
from worker.model import AgentError, Json
from worker.ngrok_config import (
    OWN_CONFIG,
    USER_CONFIG,
    VERSIONED_CONFIG,
    forget_token,
    own_config,
    parse_user_config,
    token_of,
)
from worker.ngrok_program import emit, install_ngrok
from worker.paths import NGROK_DIR


def run_tunnel(request: Json) -> None:
    """Prepare ngrok and replace this process by it; errors are emitted on standard output.

    request: token (the stack's, or null), saved (whether the token of an earlier start may be used), url (the reserved
    address of the tag, or null), port (sshd's), force_install.
    """
    os.dup2(1, 2)
    os.close(3)  # the agent's log, which ngrok must not hold open
    try:
        for folder in NGROK_DIR, PERSIST_DIR:
            os.makedirs(folder, 0o700, exist_ok=True)
        program = install_ngrok(request["force_install"])
        name, files = write_configuration(request)
        config = load_json(OWN_CONFIG)
        emit("starting web service", addr=config.get("agent", config)["web_addr"], endpoint=name)
        os.execv(program, ["ngrok", "start", "--all", "--config", ",".join(files), "--log=stdout", "--log-format=json"])
    except OSError as error:
        emit("problem", agent_problem=explain_os_error(error, NGROK_DIR))
    except AgentError as error:
        emit("problem", agent_problem=error.args)


def write_configuration(request: Json) -> tuple[str, list[str]]:
    """Write the agent's file; return (the name of the endpoint, the files for ngrok, of which the later count)."""
    text = read_all(USER_CONFIG)
    theirs = [USER_CONFIG] if text.strip() else []
    user = parse_user_config(text)
    if theirs and user.version is None:  # it predates both versions, and is read as version 2
        text, theirs = 'version: "2"\n' + text, [VERSIONED_CONFIG]
        write_file(VERSIONED_CONFIG, text, 0o600)
        user = parse_user_config(text)
    token = request["token"] or (token_of(load_json(OWN_CONFIG)) if request["saved"] else "")
    if not token and not user.token:
        forget_token()
        raise AgentError("ngrok-token-missing", "there is no ngrok token yet: an admin stores it in the stack's secret")
    name, config = own_config(user, token, request["url"], request["port"])
    write_file(OWN_CONFIG, json.dumps(config), 0o600)
    return name, [*theirs, OWN_CONFIG]
