"""The texts that OpenSSH reads: our section in a person's configuration, and the hosts it includes. Pure.

Which names are claimed, and why so (docs/connect.md tells people):
- every notebook that the stacks named last has a `Host` entry, because editors list those, and because a name that
  ssh finds in a file costs no process;
- any `name.notebook` goes to the client, known or not;
- a name that the person's own configuration speaks of, or that already means another host here (this machine,
  /etc/hosts, known_hosts), is never taken: there, only `name.notebook` works;
- nothing else is touched: other hosts cost no process and see no setting of ours.
"""

from __future__ import annotations

import binascii
import hmac
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from notebook_ssh_client.failures import Failure
from notebook_ssh_client.remembered import SUFFIX

BEGIN = "# >>> notebook-ssh >>> written by `notebook-ssh setup`, taken away by `notebook-ssh setup --remove`"
END = "# <<< notebook-ssh <<<"
_BEGIN_MARK = b"# >>> notebook-ssh >>>"
_END_MARK = b"# <<< notebook-ssh <<<"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Commands:
    """How ssh calls this client.

    python: the interpreter. home: the client's folder, or None for the default one.
    ask_for_keys: this ssh knows KnownHostsCommand (OpenSSH 8.5, not on Windows).
    hosts, known_hosts: our two files, as ssh_config(5) names them.
    """

    python: str
    home: str | None
    ask_for_keys: bool
    hosts: str
    known_hosts: str

    def words(self) -> list[str]:
        """The client itself. `-I` keeps a notebook user's PYTHONPATH or working directory from changing it."""
        home = ["--home", self.home] if self.home else []
        return [self.python, "-I", "-m", "notebook_ssh_client", *home]


def splice(text: bytes, include: str) -> bytes:
    """`text` with our section on top, in place of one that is there. The rest stays byte for byte.

    The section stands first because ssh takes the first value it meets, and because an `Include` below a `Host`
    line would count for that host alone. Raises Failure when the markers in `text` are damaged.
    """
    text = strip(text)
    mark = BYTE_ORDER_MARK if text.startswith(BYTE_ORDER_MARK) else b""
    rest = text[len(mark) :]
    newline = b"\r\n" if b"\r\n" in rest[: rest.find(b"\n") + 1] else b"\n"
    section = [BEGIN.encode(), f"Include {quoted(include)}".encode(), END.encode()]
    return mark + b"".join(line + newline for line in section) + rest


def strip(text: bytes) -> bytes:
    """`text` without our section: the exact inverse of `splice`. Raises Failure when the markers are damaged."""
    lines = text.splitlines(keepends=True)
    begins = [number for number, line in enumerate(lines) if _is(line, _BEGIN_MARK)]
    ends = [number for number, line in enumerate(lines) if _is(line, _END_MARK)]
    if not begins and not ends:
        return text
    if len(begins) != 1 or len(ends) != 1 or ends[0] < begins[0]:
        found = ", ".join(str(number + 1) for number in sorted(begins + ends))
        raise Failure(
            f"the notebook-ssh markers in your ssh configuration are not one pair (lines {found}); "
            "delete those lines and what is between them, then run the command again"
        )
    mark = BYTE_ORDER_MARK if lines[begins[0]].startswith(BYTE_ORDER_MARK) else b""
    return b"".join(lines[: begins[0]]) + mark + b"".join(lines[ends[0] + 1 :])


def _is(line: bytes, mark: bytes) -> bool:
    return line.removeprefix(BYTE_ORDER_MARK).startswith(mark)


def quoted(word: str) -> str:
    """`word` as one argument in ssh_config(5). Backslashes become slashes, which Windows takes as well."""
    word = word.replace("\\", "/")
    if '"' in word or "\n" in word:
        raise Failure(f"{word!r} holds a character that ssh's configuration cannot express; use another folder")
    return f'"{word}"' if re.search(r"[\s'#]", word) else word


def command_line(words: Sequence[str], *, through_a_shell: bool) -> str:
    """`words` as a command for ssh. With `through_a_shell`, safe in any POSIX shell too: ProxyCommand goes through one.

    Double quotes are all that every shell, cmd's CreateProcess and ssh's own splitting agree on.
    """
    for word in words:
        if re.search(r'["\n]', word) or (through_a_shell and re.search(r"[$`]", word)):
            raise Failure(f"{word!r} holds a character that cannot be passed through ssh; install in another folder")
    plain = [word.replace("\\", "/").replace("%", "%%") for word in words]
    return " ".join(f'"{word}"' if re.search(r"[^A-Za-z0-9._/:%=+-]", word) else word for word in plain)


def hosts_file(commands: Commands, names: Mapping[str, Sequence[str]], labels: Sequence[str]) -> str:
    """What ssh includes: one `Host` a notebook, and below the rules for everything that ends in `.notebook`.

    names: the notebooks by stack label, without those that belong to the person's own configuration.
    labels: the stacks, the first one first; a name that two of them know means the first one's.
    """
    text = ["# Written by notebook-ssh and replaced when notebooks come and go; changes made here are lost.\n"]
    taken: set[str] = set()
    for label in labels:
        for name in sorted(names.get(label, [])):
            if name.lower() not in taken:
                taken.add(name.lower())
                qualified = name.lower() if label == labels[0] else f"{name.lower()}.{label.lower()}"
                text.append(_entry(commands, name, qualified))
    # Whatever a quote could break out of is not ours (older ssh passes any characters on to the shell).
    text.append(f'Match host "*{SUFFIX},!*\'*"\n' + "".join(f"    {line}\n" for line in _rules(commands)))
    return "\n".join(text)


def _entry(commands: Commands, name: str, qualified: str) -> str:
    # These three stand here as well as under Match for the sake of programs that read only `Host` entries.
    spellings = " ".join(dict.fromkeys((name, name.lower())))
    lines = [f"HostName {qualified}{SUFFIX}", "User ec2-user", f"ProxyCommand {proxy_command(commands)}"]
    return f"Host {spellings}\n" + "".join(f"    {line}\n" for line in lines)


def _rules(commands: Commands) -> list[str]:
    known = quoted(commands.known_hosts)
    rules = [
        "User ec2-user",
        "Port 22",
        "HostName %h",
        f"ProxyCommand {proxy_command(commands)}",
        "ProxyUseFdpass no",
        "CanonicalizeHostname no",
        "StrictHostKeyChecking yes",
        f"UserKnownHostsFile {known}",
        "UpdateHostKeys no",
        "VerifyHostKeyDNS no",
        "CheckHostIP no",
        # The client has limits of its own, the longest of them 15 minutes for a notebook that is being woken.
        # Not `none`: ssh takes that for "not set", and a shorter limit in the person's configuration would count.
        "ConnectTimeout 1200",
    ]
    if commands.ask_for_keys:
        rules.append(
            f"KnownHostsCommand {command_line([*commands.words(), 'known-hosts'], through_a_shell=False)} %H %K"
        )
    return rules


def proxy_command(commands: Commands) -> str:
    """The ProxyCommand. Without KnownHostsCommand, an address is remembered so briefly that its keys cannot change."""
    briefly = [] if commands.ask_for_keys else ["--max-age", "60"]
    return f"{command_line([*commands.words(), 'proxy', *briefly], through_a_shell=True)} '%h' %p"


def spoken_of(name: str, configuration: Iterable[Sequence[str]]) -> bool:
    """True when a person's own configuration speaks of `name`.

    configuration: the patterns of each `Host` line. A pattern of nothing but wildcards speaks of nobody.
    """
    return any(
        any(_matches(name, pattern) for pattern in patterns if pattern.strip("*?"))
        and not any(_matches(name, pattern[1:]) for pattern in patterns if pattern[0] == "!")
        for patterns in configuration
    )


def host_patterns(text: str) -> list[list[str]]:
    """The patterns of each `Host` line in `text`."""
    return [words for keyword, words in _directives(text) if keyword == "host" and words]


def includes(text: str) -> list[str]:
    """The paths that `text` includes, as written."""
    return [path for keyword, words in _directives(text) if keyword == "include" for path in words]


def hosts_of_this_machine(text: str) -> set[str]:
    """The names in a hosts(5) file, in lower case."""
    lines = (line.partition("#")[0].split() for line in text.splitlines())
    return {name.lower() for words in lines for name in words[1:]}


class KnownHosts:
    """The hosts that a known_hosts text (sshd(8)) names, plain or hashed (HashKnownHosts)."""

    def __init__(self, text: str) -> None:
        self.plain: set[str] = set()
        self.hashed: list[tuple[bytes, bytes]] = []
        for line in text.splitlines():
            words = line.split()
            names = next((word for word in words if not word.startswith("@")), "#")
            if names.startswith("|1|"):
                try:
                    salt, digest = (binascii.a2b_base64(part) for part in names[3:].split("|"))
                except ValueError:
                    continue
                self.hashed.append((salt, digest))
            elif not names.startswith("#"):
                self.plain |= {re.sub(r"^\[(.*)\]:\d+$", r"\1", name).lower() for name in names.split(",")}

    def __contains__(self, name: str) -> bool:
        name = name.lower()
        return name in self.plain or any(
            hmac.digest(salt, name.encode(), "sha1") == digest for salt, digest in self.hashed
        )


def _directives(text: str) -> Iterable[tuple[str, list[str]]]:
    for line in text.splitlines():
        keyword, _, rest = re.sub(r"^\s*(\w+)\s*=\s*", r"\1 ", line).strip().partition(" ")
        if keyword and not keyword.startswith("#"):
            yield keyword.lower(), [one or other for one, other in re.findall(r'"([^"]*)"|([^\s"]+)', rest)]


def _matches(name: str, pattern: str) -> bool:
    """As ssh_config(5), PATTERNS: `*` any characters, `?` exactly one."""
    wild = re.escape(pattern.lower()).replace(r"\*", ".*").replace(r"\?", ".")
    return re.fullmatch(wild, name.lower()) is not None
