"""The commands that the user types. Results are printed to standard output, all other messages to standard error."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from notebook_ssh_client import __version__, messages
from notebook_ssh_client.errors import EXIT_FAILURE, EXIT_NOT_CONNECTABLE, EXIT_USAGE, CliError
from notebook_ssh_client.ssh_address import HOST_SUFFIX

# Seconds between two lists of --watch. The stack returns a list that is at most ten seconds old.
WATCH_INTERVAL_S = 10.0

CLEAR_SCREEN = "\x1b[H\x1b[2J"


def main(argv: list[str], home: str) -> int:
    """Run a command and return its exit code. Raises CliError."""
    if argv[:1] == ["ssh"]:
        return _ssh(argv[1:], home)  # argparse must not interpret the arguments of ssh
    arguments = _create_parser().parse_args(argv)
    run: Callable[[argparse.Namespace, str], int] = arguments.run
    return run(arguments, home)


def _create_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="notebook-ssh", description="ssh to SageMaker notebook instances by name.")
    parser.add_argument("--version", action="version", version=f"notebook-ssh {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    setup = commands.add_parser("setup", help="configure ssh to find notebooks by name; run again to add a stack")
    setup.add_argument(
        "--remove", action="store_true", help="remove the configuration and all files; with --stack, only that stack"
    )
    setup.add_argument("--stack", help="the stack's name (default: notebook-ssh)")
    setup.add_argument("--region", help="the stack's region (default: the profile's)")
    setup.add_argument("--profile", help="the AWS profile to call the API with (default: from the environment)")
    setup.add_argument("--api", metavar="URL", help="the API's URL with its stage (default: from the stack's outputs)")
    setup.add_argument("--ssh-config", metavar="FILE", help="the ssh_config to change (default: ~/.ssh/config)")
    setup.set_defaults(run=_setup)

    list_ = commands.add_parser("list", help="list the notebooks and their status")
    list_.add_argument("--json", action="store_true", help="print JSON")
    list_.add_argument(
        "--watch",
        type=float,
        nargs="?",
        const=WATCH_INTERVAL_S,
        metavar="SECONDS",
        help=f"list again every {WATCH_INTERVAL_S:g} seconds until Ctrl-C",
    )
    list_.set_defaults(run=_list)

    doctor = _add_notebook_command(commands, "doctor", _doctor, "check every step of the path to a notebook")
    doctor.add_argument("--json", action="store_true", help="print JSON")
    _add_notebook_command(commands, "address", _address, "print the current host and port of a notebook")
    start = _add_notebook_command(
        commands, "start", _start, "start a stopped notebook and wait until it is connectable"
    )
    start.add_argument("--timeout", type=float, metavar="SECONDS", help="how long to wait (default: 900)")
    forward = _add_notebook_command(
        commands, "forward", _forward, "a local port that leads to a notebook, for programs with an SSH of their own"
    )
    forward.add_argument("--port", type=int, metavar="PORT", help="the local port (default: one of the notebook's own)")
    forward.add_argument("--shared", action="store_true", help="also where other users are logged in on this machine")
    commands.add_parser("ssh", help="ssh NAME …: run ssh, also for a name that ssh does not know yet")
    return parser


def _add_notebook_command(
    commands: Any, name: str, run: Callable[[argparse.Namespace, str], int], help_text: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=help_text)
    parser.add_argument("name", metavar="NAME", help="the notebook; NAME.STACK if several stacks have one of this name")
    parser.set_defaults(run=run)
    return parser


def _setup(arguments: argparse.Namespace, home: str) -> int:
    from notebook_ssh_client import ssh_files

    if arguments.remove:
        return _remove(arguments, home)
    from notebook_ssh_client import address_cache, discovery, name_list, settings

    config = os.path.abspath(arguments.ssh_config or ssh_files.current_config_path(home))
    stack = discovery.discover_stack(arguments.stack, arguments.region, arguments.profile, arguments.api)
    name_list.list_notebooks(stack)  # raises CliError if the user has no access
    stacks = settings.add_stack(home, stack, config).stacks
    address_cache.clear(home)  # a name may now refer to another stack's notebook
    results = name_list.refresh_names(home)
    changed = ssh_files.install(home, config)
    _print_message(f"{config} now includes the notebooks" if changed else f"{config} already includes the notebooks")
    reached_by = [item["ssh"] for _, notebooks in results if isinstance(notebooks, list) for item in notebooks]
    count = f"{_pluralize(len(stacks), 'stack')}, {_pluralize(len(reached_by), 'notebook')}"
    _print_message(
        f"{count}. Try: ssh {reached_by[0]}"
        if reached_by
        else f"{count}. Set the tag of a notebook (its key is ssh, or what the admin chose) to ngrok or bastion"
    )
    return 0


def _remove(arguments: argparse.Namespace, home: str) -> int:
    from notebook_ssh_client import address_cache, name_list, settings, ssh_files

    if arguments.stack and settings.remove_stack(home, arguments.stack).stacks:
        address_cache.clear(home)
        name_list.forget_stacks(home)
        _print_message(f"stack {arguments.stack} was removed")
        return 0
    config = os.path.abspath(arguments.ssh_config or ssh_files.current_config_path(home))
    removed, backup = ssh_files.uninstall(home, config)
    _print_message(f"notebook-ssh was removed; {config} is restored" if removed else "there is nothing to remove")
    if backup:
        _print_message(f"{backup} is the configuration before the first setup; delete it if you do not need it")
    return 0


def _list(arguments: argparse.Namespace, home: str) -> int:
    while arguments.watch:
        _list_once(arguments, home)
        time.sleep(arguments.watch)
    return _list_once(arguments, home)


def _list_once(arguments: argparse.Namespace, home: str) -> int:
    from notebook_ssh_client import lookup, name_list

    results = name_list.refresh_names(home)
    rows = [
        {
            "stack": stack.label,
            **item,
            "address": item.get("address") if item.get("status") in lookup.CONNECTABLE else None,
        }
        for stack, notebooks in results
        if isinstance(notebooks, list)
        for item in notebooks
    ]
    if arguments.watch and sys.stdout is not None and sys.stdout.isatty():
        sys.stdout.write(CLEAR_SCREEN)
    if arguments.json:
        messages.write(json.dumps(rows, indent=2))
    elif rows:
        _print_table(rows, with_stack=len(results) > 1)
    errors = [(stack, error) for stack, error in results if isinstance(error, CliError)]
    for stack, error in errors:
        messages.report(f"stack {stack.label}: {error}" if len(results) > 1 else str(error))
    if not rows and not errors:
        _print_message(
            "no notebook is tagged; set the tag of one (its key is ssh, or what the admin chose) to ngrok or bastion"
        )
    return errors[0][1].exit_code if errors else 0


def _print_table(rows: Sequence[dict[str, Any]], *, with_stack: bool) -> None:
    from notebook_ssh_client import tables

    now = time.time()
    columns = ["name", "modes", "status", "address", "since", "ssh"] + (["stack"] if with_stack else [])
    shown = [
        {
            **row,
            "modes": " ".join(row.get("modes") or ["off"]),
            "since": tables.time_and_age(row.get("since"), now),
            "ssh": f"ssh {row['ssh']}",
        }
        for row in rows
    ]
    cells = [[messages.one_line(str(row.get(column) or "-")) for column in columns] for row in shown]
    table = [[column.upper() for column in columns], *cells]
    colour = tables.has_colour(sys.stdout)
    messages.write_formatted(tables.format_table(table, tables.width(sys.stdout), colour=colour))


def _doctor(arguments: argparse.Namespace, home: str) -> int:
    from notebook_ssh_client import doctor, tables

    diagnosis, is_reachable = doctor.diagnose(home, arguments.name)
    if arguments.json:
        messages.write(doctor.format_json(diagnosis))
    else:
        width, colour = tables.width(sys.stdout), tables.has_colour(sys.stdout)
        messages.write_formatted(doctor.format_text(diagnosis, time.time(), width, colour=colour))
    return 0 if is_reachable else EXIT_NOT_CONNECTABLE


def _address(arguments: argparse.Namespace, home: str) -> int:
    from notebook_ssh_client import lookup

    address = lookup.resolve(home, arguments.name)
    messages.write(f"{address.host} {address.port}")
    return 0


def _start(arguments: argparse.Namespace, home: str) -> int:
    from notebook_ssh_client import lookup

    notebook = lookup.start(home, arguments.name, timeout_s=arguments.timeout or lookup.START_TIMEOUT_S)
    _print_message(f"{notebook.name} is {notebook.status}. Connect with: ssh {notebook.name}")
    return 0


def _forward(arguments: argparse.Namespace, home: str) -> int:
    from notebook_ssh_client import forward

    return forward.run(home, arguments.name, port=arguments.port, shared=arguments.shared)


def _ssh(argv: Sequence[str], home: str) -> int:
    if not argv or argv[0].startswith("-"):
        raise CliError("usage: notebook-ssh ssh NAME [OPTION]… [COMMAND]", EXIT_USAGE)
    if not os.path.exists(os.path.join(home, "hosts")):
        raise CliError("ssh is not configured for notebooks; run: notebook-ssh setup", EXIT_USAGE)
    host = argv[0] if argv[0].lower().endswith(HOST_SUFFIX) else argv[0] + HOST_SUFFIX
    command = ["ssh", host, *argv[1:]]
    try:
        if os.name == "nt":  # there, exec would return to the terminal before ssh has ended
            return subprocess.call(command)
        os.execvp(command[0], command)
    except FileNotFoundError as error:
        raise CliError("ssh was not found on PATH; install the OpenSSH client", EXIT_FAILURE) from error


def _pluralize(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _print_message(message: str) -> None:
    if sys.stderr is not None:
        messages.write(message, sys.stderr)
