"""The user's commands."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from agent import HOME, drop_privileges, load_json, read_text
from worker.files import explain_os_error
from worker.instructions import no_address_text, path_lines, rejected_line_text, render_instructions
from worker.keys import sync_authorized_keys
from worker.model import Json
from worker.paths import NGROK_LOG, REPLY_FILE, STATUS_FILE, WAKE_FIFO
from worker.reply import check_reply
from worker.sshd import sessions
from worker.texts import printable

COMMANDS = "ssh-status", "copy-ssh-keys", "start-ssh-ngrok", "start-ngrok-ssh"
HELP = {
    "ssh-status": """\
ssh-status            shows how to connect, and any problems
ssh-status --in-use   prints nothing; its exit status shows whether an SSH session is open
Exit status: 0 connected (or in use), 1 not, 2 wrong usage.""",
    "copy-ssh-keys": """\
copy-ssh-keys         admits the public keys in ~/SageMaker/ssh/authorized_keys
Exit status: 0 done, 1 SSH is off or a file cannot be read or written, 2 wrong usage.""",
    "start-ssh-ngrok": """\
start-ssh-ngrok       restarts the tunnel and shows its address; also named start-ngrok-ssh
Exit status: 0 connected, 1 not, 2 wrong usage.""",
}


def run_command(name: str, *arguments: str) -> int:
    """Run one of the user's commands and return its exit status."""
    name = "start-ssh-ngrok" if name == "start-ngrok-ssh" else name
    if arguments == ("--in-use",) and name == "ssh-status":
        return 0 if sessions()["open"] else 1
    if arguments:
        print(HELP[name])
        return 0 if arguments in (("--help",), ("-h",)) else 2
    if os.getuid() == 0:
        drop_privileges()  # with sudo, too, a user's files are accessed with that user's privileges only
    status = load_json(STATUS_FILE)
    if not status.get("modes"):
        print(render_instructions({"modes": [], "problems": status.get("problems", [])}), end="")
        return 1
    if name == "copy-ssh-keys":
        return copy_ssh_keys()
    return show_status(status, restart=name == "start-ssh-ngrok")


def show(text: str) -> None:
    """Print lines of which a part may be another's: the stack's, ngrok's."""
    print(printable(text))


def show_status(status: Json, restart: bool) -> int:
    """Run `ssh-status`, or `start-ssh-ngrok` if `restart`, while SSH is on."""
    if restart and "ngrok" not in status["modes"]:
        show(f"This notebook is in mode {' '.join(status['modes'])}: there is no tunnel to start.")
        return 1
    if not notify(b"restart" if restart else b"status"):
        print("The agent is not running; restart the notebook, or ask your admin.")
        return 1
    if restart:
        before = status["tunnel_started_at"]
        status = wait_for_status(
            30, lambda new: new["tunnel_started_at"] != before and tunnel_phase(new) != "connecting"
        )
    elif not status["command"]:
        count = status["synced_wakes"]
        status = wait_for_status(10, lambda new: new["synced_wakes"] != count)
    show("\n".join(path_lines(status)) or status["command"] or no_address_text(status["phase"]))
    for code, message in status["problems"]:
        show(f"Problem: {message} [{code}]")
    phase = tunnel_phase(status) if restart else status["phase"]
    if restart and phase != "connected":
        show("\n".join([f"The end of {NGROK_LOG}:", *read_text(NGROK_LOG).splitlines()[-5:]]))
    return 0 if phase == "connected" else 1


def tunnel_phase(status: Json) -> str:
    """Return the phase of ngrok's path in a status as in STATUS_FILE."""
    return str(next(path["phase"] for path in status["paths"] if path["mode"] == "ngrok"))


def copy_ssh_keys() -> int:
    """Run `copy-ssh-keys` while SSH is on."""
    try:
        reply = check_reply(load_json(REPLY_FILE))
        keys, error = sync_authorized_keys(reply["authorized_keys"], reply["certificates"])
        if error:
            raise error
    except OSError as error:
        code, message = explain_os_error(error, HOME)
        show(f"Problem: {message} [{code}]")
        return 1
    print(f"Copying {keys['own'] + keys['central']} SSH keys...")
    for rejected in keys["rejected"]:
        show(rejected_line_text(rejected, "~/SageMaker/ssh/authorized_keys"))
    notify(b"keys")
    return 0


def wait_for_status(seconds: int, condition: Callable[[Json], bool]) -> Json:
    """Return the status as soon as `condition` holds for it, or as it is after `seconds`."""
    for _ in range(seconds * 10):
        time.sleep(0.1)
        status = load_json(STATUS_FILE)
        if condition(status):
            break
    return status


def notify(word: bytes) -> bool:
    """Write a word to the running worker; return False if none runs."""
    try:
        fifo = os.open(WAKE_FIFO, os.O_WRONLY | os.O_NONBLOCK)  # fails if no process reads it (fifo(7))
        os.write(fifo, word)
        os.close(fifo)
        return True
    except OSError:
        return False
