"""Dispatches the verbs of worker.py. Each process imports only the modules that it needs."""

from __future__ import annotations

import json
import sys

from worker.model import LABEL_SESSIONS


def main(verb: str, *arguments: str) -> int:
    """Run the worker, one of its helpers, one of root's duties, or a user's command; return the exit status."""
    if verb == "work":
        from worker.daemon import Worker

        Worker().run()
    elif verb == "tunnel":
        from worker.ngrok_start import run_tunnel

        run_tunnel(json.load(sys.stdin))
    elif verb == "list-tags":
        from worker.list_tags import list_tags

        list_tags(json.load(sys.stdin))
    elif verb == "check-credentials":
        from worker.causes import check_credentials

        check_credentials()
    elif verb in ("root-setup", "root-teardown"):
        run_as_root(verb, "".join(arguments))
    else:
        from worker.commands import run_command

        return run_command(verb, *arguments)
    return 0


def run_as_root(verb: str, word: str) -> None:
    """Do one of root's duties. word: the worker's request, one byte of another user's process in hexadecimal digits."""
    from worker.root import root_setup, root_teardown

    if verb == "root-teardown":
        root_teardown()
    elif word == LABEL_SESSIONS.hex():
        from worker.session_labels import write_labels

        write_labels()
    else:
        root_setup({"6c": "loopback", "6e": "network", "65": "either"}.get(word, ""))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
