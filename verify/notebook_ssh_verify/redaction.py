"""Makes text fit to be published: no account, no secret, no address, and no more than a glance takes in."""

from __future__ import annotations

import re

ACCOUNT = "111122223333"
"""Stands for every account, as in AWS's own documentation."""

LONGEST = 300
"""Characters of one answer in a report."""

_SECRETS = (
    (re.compile(r"\b(?:AKIA|ASIA|AROA|AIDA)[A-Z0-9]{12,}\b"), "<access key>"),
    (
        re.compile(
            r"(?i)(?<![a-z])((?:(?:auth|session|security|next)[_-]?)?token|secret(?:[_-]?string|[_-]?access[_-]?key)?"
            r"|password|signature|x-amz-[a-z-]+)(\\?\"?\s*[:=]\s*\\?\"?)[^\s\\\",&}<]+"
        ),
        r"\1\2<removed>",
    ),
    (re.compile(r"-----BEGIN [A-Z ]+-----.*?(?:-----END [A-Z ]+-----|$)", re.S), "<key>"),
    (re.compile(r"\bssh-ed25519 [A-Za-z0-9+/=]+"), "ssh-ed25519 <key>"),
    (re.compile(r"(?<![A-Za-z0-9+/])[A-Za-z0-9+/]{60,}={0,2}"), "<long text>"),
)
_OTHERS = (
    # What is not the run's has names that are nobody's business: in ARNs, and in parameters and answers of SageMaker.
    (
        re.compile(
            r"\b((?:notebook-instance(?:-lifecycle-config)?|(?:assumed-)?role|user|stack)/)(?!(?i:nbssh-verify-))[\w+=,.@/-]+"
        ),
        r"\1<name>",
    ),
    (
        re.compile(
            r"(\\?\"(?:NotebookInstanceName|NotebookInstanceLifecycleConfigName|NameContains|Url)\\?\": \\?\")(?!(?i:nbssh-verify-))[^\"\\]+"
        ),
        r"\1<name>",
    ),
)
_ACCOUNT = re.compile(r"(?<!\d)\d{12}(?!\d)")
_ADDRESS = re.compile(r"(?<![\d.])(?!127\.)\d{1,3}(?:\.\d{1,3}){3}(?![\d.])")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


def redact(text: str) -> str:
    """Return the text without accounts, secrets, keys, IPv4 addresses, and names of what is not the run's."""
    for pattern, instead in (*_SECRETS, *_OTHERS):
        text = pattern.sub(instead, text)
    return _ADDRESS.sub("192.0.2.1", _ACCOUNT.sub(ACCOUNT, text))


def shorten(text: str, longest: int = LONGEST) -> str:
    """Return the text in one line of at most `longest` characters."""
    line = _CONTROL.sub(" ", text).strip()
    return line if len(line) <= longest else f"{line[: longest - 2].rstrip()} …"
