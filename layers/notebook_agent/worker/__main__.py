"""Dispatches the verbs of worker.py. Each process imports only the modules that it needs."""

from __future__ import annotations

import json
import sys


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
        from worker.root import root_setup, root_teardown

        # The worker's request is one byte, in hexadecimal digits, since it comes from a process of another user.
        root_setup(
            {"6c": "loopback", "6e": "network"}.get("".join(arguments), "")
        ) if verb == "root-setup" else root_teardown()
    else:
        from worker.commands import run_command

        return run_command(verb, *arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
