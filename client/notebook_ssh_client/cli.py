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

from notebook_ssh_client import command_line, messages
from notebook_ssh_client.errors import EXIT_FAILURE, EXIT_NOT_CONNECTABLE, EXIT_USAGE, CliError
from notebook_ssh_client.ssh_address import HOST_SUFFIX, split_host

CLEAR_SCREEN = "\x1b[H\x1b[2J"


def main(argv: list[str], home: str) -> int:
    """Run a command and return its exit code. Raises CliError."""
    if argv[:1] == ["ssh"]:
        return _ssh(argv[1:], home)  # argparse must not interpret the arguments of ssh
    if argv[:1] == ["complete"]:
        return _complete(argv[1:], home)
    arguments = command_line.parse(argv)
    messages.set_verbose(arguments.verbose)
    return COMMANDS[arguments.command](arguments, home)


def _setup(arguments: argparse.Namespace, home: str) -> int:
    from notebook_ssh_client import ssh_files

    config = os.path.abspath(arguments.ssh_config or ssh_files.current_config_path(home))
    if arguments.remove:
        return _remove(arguments, home, config)
    from notebook_ssh_client import address_cache, certificate_store, discovery, name_list, settings

    stack = discovery.discover_stack(arguments.stack, arguments.region, arguments.profile, arguments.api)
    listed = name_list.list_notebooks(stack)  # raises CliError if the user has no access
    if arguments.dry_run:
        found = f"stack {stack.name} in {stack.region}, {_pluralize(len(listed), 'notebook')}"
        return _print_diff(config, *ssh_files.plan_install(home, config), found)
    with settings.restored_on_error(home):
        stacks = settings.add_stack(home, stack, config).stacks
        results = name_list.refresh_names(home, judge=True)
    address_cache.clear(home)  # a name may now refer to another stack's notebook
    certificate_store.clear(home)
    changed = ssh_files.install(home, config)
    _print_message(f"{config} now includes the notebooks" if changed else f"{config} already includes the notebooks")
    reached_by = [item["ssh"] for _, notebooks in results if isinstance(notebooks, list) for item in notebooks]
    count = f"{_pluralize(len(stacks), 'stack')}, {_pluralize(len(reached_by), 'notebook')}"
    _print_message(
        f"{count}. Try: ssh {reached_by[0]}"
        if reached_by
        else f"{count}. Set the tag of a notebook (its key is ssh, or what the admin chose) to ngrok, bastion or eice"
    )
    _prepare_certificates(home)
    return 0


def _prepare_certificates(home: str) -> None:
    """Make the client's key, or say why this machine gets no certificates, if a stack has them."""
    from notebook_ssh_client import certificate_request, name_list, ssh_files

    if not name_list.load_offers(home):
        return
    if not ssh_files.uses_certificates(home):
        _print_message(
            "the stack has certificates, but ssh on this machine was not seen to obtain them: it uses your own keys"
        )
        return
    certificate_request.ensure_key(home)
    _print_message(
        "the stack has certificates: ssh logs in with your AWS identity where that is admitted, without a key of yours"
    )


def _remove(arguments: argparse.Namespace, home: str, config: str) -> int:
    from notebook_ssh_client import address_cache, certificate_store, name_list, settings, ssh_files

    if arguments.dry_run:
        return _print_diff(config, *ssh_files.plan_uninstall(config), f"all files in {home} would be removed")
    if arguments.stack and settings.remove_stack(home, arguments.stack).stacks:
        address_cache.clear(home)
        certificate_store.clear(home)
        name_list.forget_stacks(home)
        _print_message(f"stack {arguments.stack} was removed")
        return 0
    removed, backup = ssh_files.uninstall(home, config)
    _print_message(f"notebook-ssh was removed; {config} is restored" if removed else "there is nothing to remove")
    if backup:
        _print_message(f"{backup} is the configuration before the first setup; delete it if you do not need it")
    return 0


def _print_diff(config: str, before: str, after: str, found: str) -> int:
    import difflib

    diff = difflib.unified_diff(before.splitlines(), after.splitlines(), config, config, lineterm="")
    lines = list(diff)
    if lines:
        messages.write("\n".join(lines))
    changes = "" if lines else f"; {config} would not change"
    _print_message(f"dry run: {found}{changes}; nothing was changed")
    return 0


def _stacks(arguments: argparse.Namespace, home: str) -> int:
    from dataclasses import asdict

    from notebook_ssh_client import name_list, settings

    stacks, names = settings.load_settings(home).stacks, name_list.load_names(home)
    if arguments.json:
        messages.write(json.dumps([asdict(stack) for stack in stacks], indent=2))
        return 0
    rows = [
        [stack.label, stack.region, stack.profile or "-", str(len(names.get(stack.label, []))), stack.api_url]
        for stack in stacks
    ]
    _print_table([["STACK", "REGION", "PROFILE", "NOTEBOOKS", "API"], *rows])
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
        _print_notebooks(rows, with_stack=len(results) > 1)
    errors = [(stack, error) for stack, error in results if isinstance(error, CliError)]
    for stack, error in errors:
        messages.report(f"stack {stack.label}: {error}" if len(results) > 1 else str(error))
    if not rows and not errors:
        _print_message(
            "no notebook is tagged; set the tag of one (its key is ssh, or what the admin chose) to ngrok, bastion or eice"
        )
    return errors[0][1].exit_code if errors else 0


def _print_notebooks(rows: Sequence[dict[str, Any]], *, with_stack: bool) -> None:
    from notebook_ssh_client import tables

    now = time.time()
    columns = ["name", "modes", "status", "address", "since", "ssh", "last used"] + (["stack"] if with_stack else [])
    shown = [
        {
            **row,
            "modes": " ".join(row.get("modes") or ["off"]),
            "since": tables.time_and_age(row.get("since"), now),
            "last used": tables.time_and_age(row.get("last_used"), now),
            "ssh": f"ssh {row['ssh']}",
        }
        for row in rows
    ]
    cells = [[str(row.get(column) or "-") for column in columns] for row in shown]
    _print_table([[column.upper() for column in columns], *cells])


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    from notebook_ssh_client import tables

    cells = [[messages.one_line(cell) for cell in row] for row in rows]
    colour = tables.has_colour(sys.stdout)
    messages.write_formatted(tables.format_table(cells, tables.width(sys.stdout), colour=colour))


def _doctor(arguments: argparse.Namespace, home: str) -> int:
    from notebook_ssh_client import doctor, tables

    if arguments.bundle:
        return _write_bundle(arguments, home)
    diagnosis, is_reachable = doctor.diagnose(home, arguments.name)
    if arguments.json:
        messages.write(doctor.format_json(diagnosis))
    else:
        width, colour = tables.width(sys.stdout), tables.has_colour(sys.stdout)
        messages.write_formatted(doctor.format_text(diagnosis, time.time(), width, colour=colour))
    return 0 if is_reachable else EXIT_NOT_CONNECTABLE


def _write_bundle(arguments: argparse.Namespace, home: str) -> int:
    from notebook_ssh_client import bundle, files

    name, text = bundle.make_bundle(home, arguments.name)
    path = os.path.abspath(name)
    files.write_atomically(path, text.encode("utf-8"), mode=0o600)
    _print_message(f"{path} is for a bug report: accounts, addresses, users, keys and tokens are masked; read it first")
    return 0


def _address(arguments: argparse.Namespace, home: str) -> int:
    from notebook_ssh_client import known_hosts, lookup

    address = lookup.resolve(home, arguments.name)
    name, label = split_host(arguments.name)
    host = ".".join(filter(None, (name, label))).lower() + HOST_SUFFIX
    known_hosts.update_file(home, host, 22, address.host_keys)  # for programs that read it before they connect
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


def _who(arguments: argparse.Namespace, home: str) -> int:
    from notebook_ssh_client import access

    answers = access.read_entries(home, arguments.name, arguments.since)
    entries = [{"stack": stack.label, **entry} for stack, answer in answers for entry in answer["entries"]]
    if arguments.json:
        messages.write(json.dumps(entries, indent=2))
    elif entries:
        _print_table(access.rows(entries, of_one=arguments.name is not None))
    else:
        _print_message("the access log has no entry for this")
    for stack, answer in answers:
        left_out = sum(int(answer.get(field) or 0) for field in ("not_kept", "not_shown"))
        if left_out:
            _print_message(f"stack {stack.label}: {left_out} more entries are not shown; name a notebook for the rest")
    return 0


def _revoke(arguments: argparse.Namespace, home: str) -> int:
    from notebook_ssh_client import access

    stack = access.revoke(home, arguments.what, arguments.stack, undo=arguments.undo)
    _print_message(
        f"{arguments.what} may log in again to the notebooks of {stack.label}, where its key or policy allows it"
        if arguments.undo
        else f"{arguments.what} is withdrawn: each notebook of {stack.label} refuses it from its next report on, and ends "
        "its sessions at the second report after it"
    )
    return 0


def _help(arguments: argparse.Namespace, _: str) -> int:
    from notebook_ssh_client import manual

    messages.write(manual.text(" ".join(arguments.words)))
    return 0


def _completion(arguments: argparse.Namespace, _: str) -> int:
    messages.write(command_line.COMPLETIONS[arguments.shell].rstrip("\n"))
    return 0


def _complete(words: Sequence[str], home: str) -> int:
    """Print what completes the last of `words`: for the functions that `completion` prints."""
    from notebook_ssh_client import name_list

    try:
        notebooks = [name for names in name_list.load_names(home).values() for name in names]
    except (CliError, OSError):
        notebooks = []
    for word in command_line.candidates(words, notebooks):
        messages.write(word)
    return 0


def _ssh(argv: Sequence[str], home: str) -> int:
    if argv[:1] in (["-h"], ["--help"]):
        messages.write(command_line.SSH_HELP.rstrip("\n"))
        return 0
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


COMMANDS: dict[str, Callable[[argparse.Namespace, str], int]] = {
    "setup": _setup,
    "stacks": _stacks,
    "list": _list,
    "doctor": _doctor,
    "address": _address,
    "start": _start,
    "forward": _forward,
    "who": _who,
    "revoke": _revoke,
    "help": _help,
    "completion": _completion,
}
