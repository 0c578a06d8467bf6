"""Texts for the user: SSH_INSTRUCTIONS and its parts."""

from __future__ import annotations

import base64
import hashlib
import os

from worker.model import Json
from worker.modes import MODES
from worker.texts import printable


def no_address_text(phase: str) -> str:
    """Return the text in place of an address that is missing in this phase of a notebook or of one of its paths."""
    if phase == "connected":
        return "The notebook is ready; its private address is not known yet. Try again in a few seconds."
    return f"There is no address yet: {phase}."


def path_lines(status: Json) -> list[str]:
    """Return a line for each of several paths, the preferred one first; none for a single one."""
    paths = status.get("paths", ())
    if len(paths) < 2:
        return []
    return [f"{path['mode']}: {path_text(path)}" for path in paths]


def path_text(path: Json) -> str:
    """Return how to take a path, or why that is not possible."""
    if path["phase"] == "connected":
        return str(path["command"] or no_address_text(path["phase"]))
    return f"{path['phase']}{': {1} [{0}]'.format(*path['problem']) if path['problem'] else ''}"


def rejected_line_text(rejected: Json, file: str) -> str:
    """Return the text for a line of `file` that holds no public key."""
    return f"Line {rejected['line']} of {file} was skipped: it is {rejected['reason']}."


def render_instructions(status: Json) -> str:
    """Return the text of SSH_INSTRUCTIONS for a status as in STATUS_FILE."""
    paused = [message for code, message in status.get("problems", ()) if code == "paused"]
    if paused and not status["modes"]:
        return (
            f"SSH to this notebook is off. {paused[0]} Ask your admin to have it turned on again; the tags of this\n"
            "notebook need no change.\n"
        )
    if not status["modes"]:
        key = os.environ.get("NOTEBOOK_SSH_TAG_KEY") or "ssh"
        ways = ", ".join(f"{key}={mode}" for mode in MODES)
        return f"SSH to this notebook is off. To turn it on, tag the notebook instance with one of {ways}.\n"
    lines = [f"SSH to {status['notebook']}: {status['phase']}", ""]
    lines += render_commands(status)
    for code, message in status["problems"]:
        lines += [f"Problem: {message} [{code}]", ""]
    for key in status["host_keys"]:
        kind, data = key.split()
        digest = base64.b64encode(hashlib.sha256(base64.b64decode(data)).digest()).decode().rstrip("=")
        lines += [f"Host key: SHA256:{digest} ({kind})"]
    lines += render_keys(status["keys"])
    if status["command"]:
        lines += render_usage(status["notebook"], status["command"])
    lines += ["", "In a terminal here: ssh-status, copy-ssh-keys, start-ssh-ngrok; each has --help.", ""]
    return printable("\n".join(lines))


def render_keys(keys: Json) -> list[str]:
    """Return the lines of SSH_INSTRUCTIONS on the keys that are admitted."""
    lines = [
        "",
        f"Keys admitted: {keys['own']} from ~/SageMaker/ssh/authorized_keys, {keys['central']} from your admin.",
    ]
    lines += [rejected_line_text(rejected, "that file") for rejected in keys["rejected"]]
    if keys.get("authorities"):
        lines += ["A certificate for an AWS identity that your admin lets log in is admitted as well."]
    elif not keys["own"] + keys["central"]:
        lines += ["You cannot log in yet: there is no key."]
    return [
        *lines,
        "To add one, write the public key (a file that ends in .pub) into that file, on a line of its own,",
        "and run copy-ssh-keys in a terminal here.",
    ]


def render_commands(status: Json) -> list[str]:
    """Return the lines of SSH_INSTRUCTIONS on what to type: the client first, whose host key is verified."""
    paths = [f"    {line}" for line in path_lines(status)]
    each = ["Its paths, the preferred one first:", "", *paths, ""] if paths else []
    if not status["command"]:
        return [f"    {no_address_text(status['phase'])}", "", *each]
    return [
        "With the client notebook-ssh on your computer, which finds the notebook and verifies the host key:",
        "",
        f"    ssh {status['notebook']}",
        "",
        "With plain ssh; at its question, compare the host key with the one below:",
        "",
        f"    {status['command']}",
        "",
        *each,
    ]


def render_usage(notebook: str, command: str) -> list[str]:
    """Return the lines of SSH_INSTRUCTIONS on other programs, given the command of plain ssh."""
    target = command.split()[-1]
    copy = command.replace("ssh -p", "scp -P").replace("ssh -", "scp -").replace(target, f"FILE {target}:SageMaker/")
    return [
        "",
        f"Copy a file here:   scp FILE {notebook}:SageMaker/",
        f"with plain ssh:     {copy}",
        f"VS Code, Cursor:    Remote-SSH, choose {notebook}; type the name if it is not listed",
        "PyCharm:            Remote Development or SSH interpreter, with the same host, port and user",
    ]
