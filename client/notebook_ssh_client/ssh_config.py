"""Generates and parses the texts that OpenSSH reads: the section in the user's ssh_config, and the hosts file. Pure.

Which host names the client takes, as docs/connect.md describes it:
- every notebook that the stacks listed last has a `Host` entry, because editors list those, and because a name that
  ssh finds in a file needs no process;
- every `name.notebook` is passed to the client, listed or not;
- a name that the user's own ssh_config configures, or that already refers to another host (this machine, /etc/hosts,
  known_hosts), is never taken: only `name.notebook` works for it;
- no other host is affected: it needs no process and gets none of the client's settings.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from notebook_ssh_client.errors import CliError
from notebook_ssh_client.ssh_address import HOST_SUFFIX

BEGIN_LINE = "# >>> notebook-ssh >>> written by `notebook-ssh setup`, taken away by `notebook-ssh setup --remove`"
END_LINE = "# <<< notebook-ssh <<<"
_BEGIN_MARKER = b"# >>> notebook-ssh >>>"
_END_MARKER = b"# <<< notebook-ssh <<<"


@dataclass(frozen=True)
class ClientCommand:
    """How ssh runs this client."""

    python: str  # the path of the interpreter
    home: str | None  # the client's directory; None: the default one
    has_known_hosts_command: bool  # whether ssh supports KnownHostsCommand (OpenSSH 8.5, not on Windows)
    hosts_path: str  # the client's hosts file, as ssh_config(5) writes it
    known_hosts_path: str
    certificates_path: str = ""  # the file with the `Match` for certificates; "" if there is none
    key_path: str = ""  # the client's own key
    certificate_folder: str = ""

    def argv(self, *arguments: str) -> list[str]:
        """Return the client's command line. `-I` makes Python ignore PYTHONPATH and the working directory."""
        home = ["--home", self.home] if self.home else []
        return [self.python, "-I", "-m", "notebook_ssh_client", *home, *arguments]


def insert_section(text: bytes, include: str) -> bytes:
    """Return `text` with the client's section at its top, in place of an existing one; all other bytes unchanged.

    The section comes first because ssh uses the first value that it finds, and because an `Include` below a `Host`
    line applies to that host only. Raises CliError if the markers in `text` are damaged.
    """
    text = remove_section(text)
    bom = codecs.BOM_UTF8 if text.startswith(codecs.BOM_UTF8) else b""
    rest = text[len(bom) :]
    newline = b"\r\n" if b"\r\n" in rest[: rest.find(b"\n") + 1] else b"\n"
    section = [BEGIN_LINE.encode(), f"Include {quote(include)}".encode(), END_LINE.encode()]
    return bom + b"".join(line + newline for line in section) + rest


def remove_section(text: bytes) -> bytes:
    """Return `text` without the section: the exact inverse of `insert_section`. Raises CliError for damaged markers."""
    lines = text.splitlines(keepends=True)
    begins = [number for number, line in enumerate(lines) if _has_marker(line, _BEGIN_MARKER)]
    ends = [number for number, line in enumerate(lines) if _has_marker(line, _END_MARKER)]
    if not begins and not ends:
        return text
    if len(begins) != 1 or len(ends) != 1 or ends[0] < begins[0]:
        found = ", ".join(str(number + 1) for number in sorted(begins + ends))
        raise CliError(
            f"the notebook-ssh markers in your ssh_config are damaged (lines {found}); delete these lines and "
            "everything between them, then run the command again"
        )
    bom = codecs.BOM_UTF8 if lines[begins[0]].startswith(codecs.BOM_UTF8) else b""
    return b"".join(lines[: begins[0]]) + bom + b"".join(lines[ends[0] + 1 :])


def _has_marker(line: bytes, marker: bytes) -> bool:
    return line.removeprefix(codecs.BOM_UTF8).startswith(marker)


def quote(argument: str) -> str:
    """Quote `argument` for ssh_config(5). Backslashes become slashes, which Windows accepts too."""
    argument = argument.replace("\\", "/")
    if '"' in argument or "\n" in argument:
        raise CliError(
            f"{argument!r} contains a character that ssh_config does not support; set NOTEBOOK_SSH_HOME to another folder"
        )
    return f'"{argument}"' if re.search(r"[\s'#]", argument) else argument


def join_command(argv: Sequence[str], *, for_shell: bool) -> str:
    """Quote and join `argv` to a command for ssh. for_shell: ssh passes it to a shell, as it does a ProxyCommand.

    Double quotes are the only form that POSIX shells, Windows' CreateProcess and ssh's own parser all accept.
    """
    for argument in argv:
        if re.search(r'["\n]', argument) or (for_shell and re.search(r"[$`]", argument)):
            raise CliError(
                f"{argument!r} contains a character that ssh cannot pass on; install the client in another folder"
            )
    escaped = [argument.replace("\\", "/").replace("%", "%%") for argument in argv]
    return " ".join(f'"{word}"' if re.search(r"[^A-Za-z0-9._/:%=+-]", word) else word for word in escaped)


def ssh_names(
    names: Mapping[str, Sequence[str]], labels: Sequence[str], is_free: Callable[[str], bool]
) -> dict[tuple[str, str], str]:
    """Return what to type after `ssh` for each notebook, by stack label and name.

    names: the notebooks by stack label. labels: the stacks, in order; a name that two of them have refers to the first
    one's notebook. is_free: whether a short name is not the user's own.
    """
    result: dict[tuple[str, str], str] = {}
    taken: set[str] = set()
    for label in labels:
        for name in names.get(label, []):
            if name.lower() in taken:
                result[label, name] = f"{name}.{label}{HOST_SUFFIX}"
            else:
                taken.add(name.lower())
                result[label, name] = name if is_free(name) else f"{name}{HOST_SUFFIX}"
    return result


def hosts_file(command: ClientCommand, reached_by: Mapping[tuple[str, str], str], labels: Sequence[str]) -> str:
    """Return the file that ssh includes: a `Host` entry for each short name, then a `Match` for every `*.notebook`.

    reached_by: as `ssh_names` returns it. labels: the stacks, in order.
    """
    text = ["# Written by notebook-ssh and replaced when notebooks come and go; changes made here are lost.\n"]
    for number, label in enumerate(labels):
        suffix = f".{label.lower()}{HOST_SUFFIX}" if number else HOST_SUFFIX
        short = sorted(name for (owner, name), typed in reached_by.items() if owner == label and typed == name)
        text += [_host_entry(command, name, f"{name.lower()}{suffix}") for name in short]
        # `Host` distinguishes capitals, `Match host` does not.
        text += [f'Match host "{names}"\n    HostName %h{suffix}\n' for names in _lists_of(short)]
    # No name with a quote: older versions of ssh pass any character on to the shell.
    options = "".join(f"    {line}\n" for line in _match_options(command))
    text.append(f'Match host "*{HOST_SUFFIX},!*\'*"\n{options}')
    if command.certificates_path:
        # A file of its own: programs that read this one without OpenSSH would run the command in it, or fail at it.
        text.append(f"Include {quote(command.certificates_path)}\n")
    return "\n".join(text)


def certificates_file(command: ClientCommand, hosts: Sequence[str], check: str, default_keys: Sequence[str]) -> str:
    """Return the file that makes ssh use the client's key, and its certificate for the host, where `check` succeeds.

    hosts: pattern lists of `Match host`. check: a command of `certificate_check`. default_keys: those that ssh tries
    by itself only where no `IdentityFile` applies, as here one does; agents and security keys are tried in any case.
    """
    options = [
        f"CertificateFile {quote(_escaped(command.certificate_folder) + '/%h-cert.pub')}",
        *(f"IdentityFile {quote(_escaped(path))}" for path in (command.key_path, *default_keys)),
        "AddKeysToAgent no",  # or each connection would leave this key in the user's agent
    ]
    block = "".join(f"    {option}\n" for option in options)
    return "# Written by notebook-ssh; changes made here are lost.\n" + "\n".join(
        f'Match host "{host}" exec "{check}"\n{block}' for host in hosts
    )


def certificate_hosts(names: Sequence[str], unoffered: Sequence[str], *, literal: bool) -> list[str]:
    """Return the pattern lists of the hosts that may have certificates.

    names: what the stacks with certificates list, with HOST_SUFFIX. unoffered: the labels of the stacks without.
    literal: only these names, as where a name could mean something to the shell.
    """
    if literal:
        return list(_lists_of(names))
    without = [f"!*.{label.lower()}{HOST_SUFFIX}" for label in unoffered]
    return [",".join([f"*{HOST_SUFFIX}", "!*'*", *without])]


def certificate_check(command: ClientCommand, *arguments: str, for_posix: bool) -> str | None:
    """Return the command of `Match exec`, which runs in a shell; None if this client's path cannot be written there.

    It stands in double quotes, in which ssh_config(5) has no other. Single quotes keep the rest from a POSIX shell;
    Windows has no shell that knows them.
    """
    words = [*command.argv("certificate"), *arguments]
    if any(re.search(r"[\"'\\\n]", word) or not word.isprintable() for word in words):
        return None
    if not for_posix:
        return " ".join(words) + " %h" if all(re.fullmatch(r"[A-Za-z0-9._/:=-]+", word) for word in words) else None
    quoted = (word if re.fullmatch(r"[A-Za-z0-9._/:=+-]+", word) else f"'{word}'" for word in map(_escaped, words))
    return " ".join([*quoted, "'%h'"])


def _escaped(text: str) -> str:
    return text.replace("\\", "/").replace("%", "%%")


def _host_entry(command: ClientCommand, name: str, host_name: str) -> str:
    # These options are also below `Match`, and repeated here for programs that read only `Host` entries.
    spellings = " ".join(dict.fromkeys((name, name.lower())))
    lines = [f"HostName {host_name}", "User ec2-user", f"ProxyCommand {proxy_command(command)}"]
    return f"Host {spellings}\n" + "".join(f"    {line}\n" for line in lines)


def _lists_of(names: Sequence[str]) -> Iterator[str]:
    """Yield pattern lists of at most 16 names: before OpenSSH 7.8, a line had at most 1,024 characters."""
    for start in range(0, len(names), 16):
        yield ",".join(name.lower() for name in names[start : start + 16])


def _match_options(command: ClientCommand) -> list[str]:
    options = [
        "User ec2-user",
        "Port 22",
        "HostName %h",
        f"ProxyCommand {proxy_command(command)}",
        "ProxyUseFdpass no",
        "CanonicalizeHostname no",
        "StrictHostKeyChecking yes",
        f"UserKnownHostsFile {quote(command.known_hosts_path)}",
        "UpdateHostKeys no",
        "VerifyHostKeyDNS no",
        "CheckHostIP no",
        # The client has its own timeouts, the longest of them 15 minutes for a notebook that is starting.
        # Not `none`: ssh treats that as "not set", and a shorter timeout in the user's ssh_config would apply.
        "ConnectTimeout 1200",
    ]
    if command.has_known_hosts_command:
        options.append(f"KnownHostsCommand {join_command(command.argv('known-hosts'), for_shell=False)} %H %K")
    return options


def proxy_command(command: ClientCommand) -> str:
    """Return the ProxyCommand. Without KnownHostsCommand, addresses expire before a notebook can have new host keys."""
    max_age = [] if command.has_known_hosts_command else ["--max-age", "60"]
    return f"{join_command(command.argv('proxy', *max_age), for_shell=True)} '%h' %p"
