"""Decides which short names belong to the user: whatever ssh's configuration and known hosts already speak of. Pure.

A name is left to the user as well when this cannot be decided without running something, as with `Match exec`.
"""

from __future__ import annotations

import binascii
import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

# Criteria of `Match` without an argument, and those whose argument is no host (ssh_config(5), Match).
_FLAGS = frozenset({"all", "canonical", "final"})
_NOT_ABOUT_HOSTS = frozenset({"user", "localuser", "localnetwork", "tagged", "command", "version", "sessiontype"})
_ABOUT_HOSTS = frozenset({"host", "originalhost"})

_QUOTED = r"""\"(?:\\["'\\]|[^"])*"|'(?:\\["'\\]|[^'])*'|\\["'\\ ]"""
_QUOTED_OR_ESCAPED = re.compile(_QUOTED)
_WORD = re.compile(rf"""(?:{_QUOTED}|[^\s"'])+""")


@dataclass(frozen=True)
class PatternList:
    """A pattern list as ssh_config(5), PATTERNS. Case-insensitive, as ssh compares the names in `Match`."""

    patterns: tuple[str, ...]
    is_negated: bool = False  # `Match !host …`

    def matches(self, name: str) -> bool:
        """Return whether the list applies to `name`: a pattern matches, and no pattern with `!` does."""
        included = any(_matches(name, pattern) for pattern in self.patterns if not pattern.startswith("!"))
        excluded = any(_matches(name, pattern[1:]) for pattern in self.patterns if pattern.startswith("!"))
        return (included and not excluded) is not self.is_negated

    def specific(self) -> list[str]:
        """Return the patterns that speak of some names only: not negated, and with more than wildcards."""
        return [] if self.is_negated else [p for p in self.patterns if p.strip("*?") and not p.startswith("!")]


@dataclass(frozen=True)
class NameRule:
    """A `Host` or `Match` line: the names that it applies to."""

    lists: tuple[PatternList, ...]  # all of them must match
    is_undecided: bool = False  # it has a criterion that only ssh can judge

    def claims(self, name: str) -> bool:
        """Return whether the line speaks of `name`, and not of every host."""
        if not all(patterns.matches(name) for patterns in self.lists):
            return False
        return self.is_undecided or any(
            _matches(name, pattern) for patterns in self.lists for pattern in patterns.specific()
        )


class HashedHost:
    """A host name as HashKnownHosts stores it: salt and HMAC-SHA1 (RFC 2104).

    The two states after the key are kept, because `hmac` computes them again for each of the names to compare, which
    makes a refresh three times as slow.
    """

    def __init__(self, salt: bytes, digest: bytes) -> None:
        key = salt.ljust(64, b"\0")
        self._inner = hashlib.sha1(bytes(byte ^ 0x36 for byte in key), usedforsecurity=False)
        self._outer = hashlib.sha1(bytes(byte ^ 0x5C for byte in key), usedforsecurity=False)
        self._digest = digest

    def is_for(self, name: bytes) -> bool:
        """Return whether `name` is the host's name."""
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(name)
        outer.update(inner.digest())
        return outer.digest() == self._digest


class KnownHosts:
    """The hosts in known_hosts files (sshd(8)), plain or hashed (HashKnownHosts)."""

    def __init__(self, text: str) -> None:
        self.plain: set[str] = set()
        self.hashed: list[HashedHost] = []
        for line in text.splitlines():
            hostnames = next((field for field in line.split() if not field.startswith("@")), "#")
            if hostnames.startswith("|1|"):
                try:
                    salt, digest = (binascii.a2b_base64(part) for part in hostnames[3:].split("|"))
                except ValueError:
                    continue
                self.hashed.append(HashedHost(salt, digest))
            elif not hostnames.startswith("#"):
                self.plain |= {re.sub(r"^\[(.*)\]:\d+$", r"\1", name).lower() for name in hostnames.split(",")}

    def __contains__(self, name: str) -> bool:
        name = name.lower()
        encoded = name.encode()
        return name in self.plain or any(host.is_for(encoded) for host in self.hashed)


@dataclass
class UserNames:
    """What this machine already calls by a name."""

    rules: list[NameRule] = field(default_factory=list)
    local: set[str] = field(default_factory=set)  # this machine's names and those in hosts(5), in lower case
    known_hosts: KnownHosts = field(default_factory=lambda: KnownHosts(""))
    is_undecided: bool = False  # a file could not be read: it may speak of any name

    def __post_init__(self) -> None:
        patterns = [p for rule in self.rules for patterns in rule.lists for p in patterns.specific()]
        self._any_specific = re.compile("|".join(map(_regex, patterns)) or r"(?!)", re.IGNORECASE)
        self._undecided = [rule for rule in self.rules if rule.is_undecided]

    def claims(self, name: str) -> bool:
        """Return whether `name` is the user's, or may be."""
        if self.is_undecided or name.lower() in self.local or any(rule.claims(name) for rule in self._undecided):
            return True
        # One expression for all patterns first: most names match none.
        if self._any_specific.fullmatch(name) and any(rule.claims(name) for rule in self.rules):
            return True
        return name in self.known_hosts


def name_rules(text: str) -> list[NameRule]:
    """Return the rule of each `Host` and `Match` line in `text`."""
    rules = []
    for keyword, arguments in directives(text):
        if keyword == "host" and arguments:
            rules.append(NameRule((PatternList(tuple(arguments)),)))
        elif keyword == "match":
            rules.append(_match_rule(arguments))
    return rules


def _match_rule(arguments: Sequence[str]) -> NameRule:
    lists, is_undecided, words = [], False, iter(arguments)
    for word in words:
        attribute, _, value = word.partition("=")
        criterion = attribute.lstrip("!").lower()
        if criterion in _FLAGS:
            continue
        value = value or next(words, "")
        if criterion in _ABOUT_HOSTS:
            lists.append(PatternList(tuple(value.split(",")), is_negated=attribute.startswith("!")))
        elif criterion not in _NOT_ABOUT_HOSTS:
            is_undecided = True  # exec, or a criterion of a newer ssh
    return NameRule(tuple(lists), is_undecided)


def directives(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the keyword (in lower case) and the arguments of each line."""
    for line in text.splitlines():
        keyword, _, rest = re.sub(r"^\s*(\w+)\s*=\s*", r"\1 ", line).strip().partition(" ")
        keyword, _, tabbed = keyword.partition("\t")
        if keyword and not keyword.startswith("#"):
            yield keyword.lower(), list(_arguments(f"{tabbed} {rest}"))


def unconditional_includes(text: str) -> list[str]:
    """Return the paths that `text` includes for every host: above the first line that chooses some."""
    paths: list[str] = []
    for keyword, arguments in directives(text):
        if keyword == "include":
            paths += arguments
        elif keyword in ("host", "match") and arguments not in (["*"], ["all"]):
            break
    return paths


def includes(text: str) -> list[str]:
    """Return the paths that `text` includes, as written."""
    return [path for keyword, arguments in directives(text) if keyword == "include" for path in arguments]


def etc_hosts_names(text: str) -> set[str]:
    """Return the names in a hosts(5) file, in lower case."""
    lines = (line.partition("#")[0].split() for line in text.splitlines())
    return {name.lower() for fields in lines for name in fields[1:]}


def _arguments(text: str) -> Iterable[str]:
    """Yield the words of a line as ssh splits it: quotes of either kind may be around a part of a word (ssh_config(5))."""
    for word in _WORD.findall(text):
        if word.startswith("#"):
            return  # a comment
        yield _QUOTED_OR_ESCAPED.sub(_unquoted, word)


def _unquoted(part: re.Match[str]) -> str:
    text: str = part[0]
    return text[1] if text.startswith("\\") else re.sub(r"""\\(["'\\])""", r"\1", text[1:-1])


def _matches(name: str, pattern: str) -> bool:
    return re.fullmatch(_regex(pattern), name, re.IGNORECASE) is not None


def _regex(pattern: str) -> str:
    """Return the regular expression of a pattern: `*` is any number of characters, `?` exactly one."""
    return re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
