"""The command `notebook-ssh`: straight to the two commands that ssh calls, or on to those that people type."""

from __future__ import annotations

import os
import sys

from notebook_ssh_client import files
from notebook_ssh_client.failures import Failure


def main() -> int:
    """Run the command in `sys.argv` and answer its exit code (docs/connect.md lists them)."""
    words = sys.argv[1:]
    home = files.home()
    if words[:1] == ["--home"] and len(words) > 1:
        home, words = words[1], words[2:]
    try:
        return _run(words, home)
    except Failure as failure:
        print(f"notebook-ssh: {failure}", file=sys.stderr)
        return failure.exit_code
    except BrokenPipeError:
        # Whoever read our output has gone; leave nothing for the interpreter to flush at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except KeyboardInterrupt:
        return 130


def _run(words: list[str], home: str) -> int:
    if words[:1] == ["proxy"]:
        from notebook_ssh_client import proxy

        return proxy.main(words[1:], home)
    if words[:1] == ["known-hosts"]:
        from notebook_ssh_client import known_hosts

        return known_hosts.main(words[1:], home)
    from notebook_ssh_client import cli

    return cli.main(words, home)


if __name__ == "__main__":
    sys.exit(main())
