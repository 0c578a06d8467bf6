"""The commands that people type. Answers go to standard output, everything said beside them to standard error."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

from notebook_ssh_client import __version__
from notebook_ssh_client.failures import FAILED, NOT_CONNECTABLE, USAGE, Failure
from notebook_ssh_client.remembered import SUFFIX


def main(words: list[str], home: str) -> int:
    """Run one command and answer its exit code. Raises Failure."""
    if words[:1] == ["ssh"]:
        return _ssh(words[1:], home)  # what follows the name is ssh's, whatever it looks like
    arguments = _parser().parse_args(words)
    command: Callable[[argparse.Namespace, str], int] = arguments.command
    return command(arguments, home)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="notebook-ssh", description="ssh to SageMaker notebook instances by name, wherever they are today."
    )
    parser.add_argument("--version", action="version", version=f"notebook-ssh {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    setup = commands.add_parser("setup", help="let ssh find notebooks by name; run again for another stack")
    setup.add_argument("--remove", action="store_true", help="take everything away again")
    setup.add_argument("--stack", help="the stack's name (default: notebook-ssh)")
    setup.add_argument("--region", help="the stack's region (default: the profile's)")
    setup.add_argument("--profile", help="the AWS profile to ask with (default: what the environment says)")
    setup.add_argument(
        "--api", metavar="URL", help="the API's address with its stage (default: asked of CloudFormation)"
    )
    setup.add_argument("--ssh-config", metavar="FILE", help="the configuration to change (default: ~/.ssh/config)")
    setup.set_defaults(command=_setup)

    listing = commands.add_parser("list", help="the notebooks, and whether they can be reached")
    listing.add_argument("--json", action="store_true", help="as JSON")
    listing.set_defaults(command=_list)

    for name, command, text in (
        ("doctor", _doctor, "every step between you and a notebook: ok, waiting or failed, and what to do"),
        ("address", _address, "where a notebook is now: host and port"),
        ("start", _start, "start a stopped notebook and wait until it can be reached"),
    ):
        one = commands.add_parser(name, help=text)
        one.add_argument("name", metavar="NAME", help="the notebook; NAME.STACK where several stacks know the name")
        one.set_defaults(command=command)
        if name == "doctor":
            one.add_argument("--json", action="store_true", help="as JSON")
        if name == "start":
            one.add_argument("--limit", type=float, metavar="SECONDS", help="how long to wait (default: 900)")
    commands.add_parser("ssh", help="ssh NAME …: the same as ssh, for a name that ssh does not know yet")
    return parser


def _setup(arguments: argparse.Namespace, home: str) -> int:
    from notebook_ssh_client import ssh_files

    if arguments.remove:
        return _remove(arguments, home)
    from notebook_ssh_client import discovery, lookup, stacks

    config = os.path.abspath(arguments.ssh_config or ssh_files.config_in_use(home))
    stack = discovery.discover(arguments.stack, arguments.region, arguments.profile, arguments.api)
    lookup.read_names_or_fail(stack)
    known = stacks.add(home, stack, config)
    lookup.forget_all(home)
    told = lookup.refresh_names(home)
    changed = ssh_files.install(home, config)
    _say(f"{config} now includes the notebooks" if changed else f"{config} includes the notebooks already")
    names = [item["name"] for _, items in told if isinstance(items, list) for item in items]
    count = f"{_counted(len(known.stacks), 'stack')}, {_counted(len(names), 'notebook')}"
    _say(f"{count}. Try: ssh {names[0]}" if names else f"{count}: tag one ssh=ngrok or ssh=bastion")
    return 0


def _remove(arguments: argparse.Namespace, home: str) -> int:
    from notebook_ssh_client import ssh_files

    config = os.path.abspath(arguments.ssh_config or ssh_files.config_in_use(home))
    removed = ssh_files.uninstall(home, config)
    _say(f"{config} is as it was; nothing of notebook-ssh is left" if removed else "there is nothing to remove")
    return 0


def _list(arguments: argparse.Namespace, home: str) -> int:
    from notebook_ssh_client import lookup

    told = lookup.refresh_names(home)
    rows = [{"stack": stack.label, **item} for stack, items in told if isinstance(items, list) for item in items]
    if arguments.json:
        print(json.dumps(rows, indent=2))
    elif rows:
        columns = ["name", "mode", "status", "address", "since"] + (["stack"] if len(told) > 1 else [])
        print(_table(columns, rows))
    failures = [(stack, items) for stack, items in told if isinstance(items, Failure)]
    for stack, failure in failures:
        print(f"notebook-ssh: {stack.label}: {failure}", file=sys.stderr)
    if not rows and not failures:
        _say("no notebook is tagged yet; tag one ssh=ngrok or ssh=bastion")
    return failures[0][1].exit_code if failures else 0


def _doctor(arguments: argparse.Namespace, home: str) -> int:
    from notebook_ssh_client import lookup

    diagnosis, well = lookup.diagnose(home, arguments.name, as_json=arguments.json)
    print(diagnosis)
    return 0 if well else NOT_CONNECTABLE


def _address(arguments: argparse.Namespace, home: str) -> int:
    from notebook_ssh_client import lookup

    place = lookup.find(home, arguments.name)
    print(f"{place.host} {place.port}")
    return 0


def _start(arguments: argparse.Namespace, home: str) -> int:
    from notebook_ssh_client import lookup

    found = lookup.start(home, arguments.name, limit=arguments.limit or lookup.WAIT_LIMIT)
    _say(f"{found.name} is {found.status}. Connect with: ssh {found.name}")
    return 0


def _ssh(words: Sequence[str], home: str) -> int:
    if not words or words[0].startswith("-"):
        raise Failure("usage: notebook-ssh ssh NAME [what ssh takes after a host, or its options]", USAGE)
    if not os.path.exists(os.path.join(home, "hosts")):
        raise Failure("ssh has not been told of the notebooks yet; run: notebook-ssh setup", USAGE)
    host = words[0] if words[0].lower().endswith(SUFFIX) else words[0] + SUFFIX
    command = ["ssh", host, *words[1:]]
    try:
        if os.name == "nt":  # there, exec would give the terminal back before ssh has ended
            return subprocess.call(command)
        os.execvp(command[0], command)
    except FileNotFoundError as error:
        raise Failure("there is no ssh on this machine's PATH; install OpenSSH's client", FAILED) from error


def _table(columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> str:
    cells = [[column.upper() for column in columns]]
    cells += [[str(row.get(column) or "-") for column in columns] for row in rows]
    widths = [max(len(line[number]) for line in cells) for number in range(len(columns))]
    return "\n".join("  ".join(word.ljust(width) for word, width in zip(line, widths)).rstrip() for line in cells)


def _counted(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr)
