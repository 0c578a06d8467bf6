"""The command `notebook-ssh`: dispatches to the three commands that ssh calls, or to those that the user types."""

from __future__ import annotations

import os
import sys

from notebook_ssh_client import files, messages
from notebook_ssh_client.errors import CliError


def main() -> int:
    """Run the command in `sys.argv` and return its exit code (listed in docs/connect.md)."""
    messages.open_standard_streams()
    argv = sys.argv[1:]
    home = files.home()
    if argv[:1] == ["--home"] and len(argv) > 1:
        home, argv = argv[1], argv[2:]
    try:
        exit_code = _dispatch(argv, home)
        if sys.stdout is not None:
            sys.stdout.flush()
    except CliError as error:
        messages.report(str(error))
        return error.exit_code
    except BrokenPipeError:
        # The reader of stdout has gone; leave nothing for the interpreter to flush at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except KeyboardInterrupt:
        return 130
    return exit_code


def _dispatch(argv: list[str], home: str) -> int:
    if argv[:1] == ["proxy"]:
        from notebook_ssh_client import proxy

        return proxy.main(argv[1:], home)
    if argv[:1] == ["known-hosts"]:
        from notebook_ssh_client import known_hosts

        return known_hosts.main(argv[1:], home)
    if argv[:1] == ["certificate"]:
        from notebook_ssh_client import certificate

        return certificate.main(argv[1:], home)
    from notebook_ssh_client import cli

    return cli.main(argv, home)


if __name__ == "__main__":
    sys.exit(main())
