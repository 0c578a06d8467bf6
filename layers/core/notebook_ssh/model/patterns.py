"""Lists of patterns that name notebooks or roles, as an admin writes them: `team-a-* box-7`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase

_NOTEBOOKS = re.compile(r"[A-Za-z0-9*?-]+")
_ROLES = re.compile(r"[A-Za-z0-9+=,.@_*?-]+")


class InvalidPatternError(ValueError):
    """A list that is empty, or a word of it that has other characters than a name and `*` and `?`."""


@dataclass(frozen=True, slots=True)
class Patterns:
    """Matches a name if one of the words does. `*` stands for any characters, `?` for one."""

    words: tuple[str, ...]
    # Whether capitals count. They do not in a notebook's name, since SageMaker's ARNs have it in lower case.
    exact_case: bool

    def match(self, name: str) -> bool:
        """Return whether `name` matches."""
        if self.exact_case:
            return any(fnmatchcase(name, word) for word in self.words)
        return any(fnmatchcase(name.lower(), word.lower()) for word in self.words)


def notebook_patterns(text: str) -> Patterns:
    """Return the patterns of notebooks' names in `text`, separated by spaces. Raises InvalidPatternError."""
    return Patterns(_words(text, _NOTEBOOKS), exact_case=False)


def role_patterns(text: str) -> Patterns:
    """Return the patterns of roles' names, without paths, in `text`. Raises InvalidPatternError."""
    return Patterns(_words(text, _ROLES), exact_case=True)


def _words(text: str, allowed: re.Pattern[str]) -> tuple[str, ...]:
    words = tuple(text.split())
    if not words or not all(allowed.fullmatch(word) for word in words):
        raise InvalidPatternError
    return words
