"""Parse public keys in OpenSSH's format, and check their structure.

A host key is written to users' `known_hosts` files and a central key to a notebook's `authorized_keys`. In both files
a malformed line could admit the wrong party.

Sources: the blob of a key is RFC 4253 §6.6 (ssh-rsa), RFC 5656 §3.1 (ECDSA) and RFC 8709 §4 (Ed25519);
security-key and certificate types are OpenSSH's PROTOCOL.u2f and PROTOCOL.certkeys; the line around it is
AUTHORIZED_KEYS FILE FORMAT in sshd(8).
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from notebook_ssh.errors import Problem
from notebook_ssh.model.patterns import InvalidPatternError, notebook_patterns

CERTIFICATE = "-cert-v01@openssh.com"

CURVES = {"nistp256": 32, "nistp384": 48, "nistp521": 66}
"""The curves of RFC 5656 §10.1 that OpenSSH supports, with the bytes of one coordinate."""

PLAIN_TYPES = frozenset({"ssh-ed25519", "ssh-rsa"} | {f"ecdsa-sha2-{curve}" for curve in CURVES})
"""Types without hardware or certificate: those of host keys."""

SECURITY_KEY_TYPES = frozenset({"sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com"})

CERTIFICATE_TYPES = frozenset(
    {f"{plain}{CERTIFICATE}" for plain in PLAIN_TYPES}
    | {f"{key.split('@')[0]}{CERTIFICATE}" for key in SECURITY_KEY_TYPES}
)

KEY_TYPES = PLAIN_TYPES | SECURITY_KEY_TYPES | CERTIFICATE_TYPES

SMALLEST_RSA_BITS = 2048
"""The crypto policies of Amazon Linux 2023 and of FIPS mode refuse shorter ones (sshd_config(5), RequiredRSASize)."""

LONGEST_LINE = 8192
"""Bytes: more than a 16,384-bit RSA certificate with its options needs."""

NARROWING = frozenset(
    {
        "restrict",
        "no-agent-forwarding",
        "no-port-forwarding",
        "no-pty",
        "no-user-rc",
        "no-x11-forwarding",
        "verify-required",
        # Each of these restores one permission that `restrict` removed, and none that a line without options lacks.
        "agent-forwarding",
        "port-forwarding",
        "pty",
        "user-rc",
        "x11-forwarding",
    }
)
_NOTEBOOKS_LINE = re.compile(r"\s*#\s*notebooks\s*:(.*)", re.IGNORECASE)
_LOOKS_LIKE_NOTEBOOKS = re.compile(r"\s*#+\s*notebooks?\s*[:=]", re.IGNORECASE)

NARROWING_WITH_VALUE = frozenset({"command", "expiry-time", "from", "permitlisten", "permitopen"})


class InvalidKeyError(ValueError):
    """A line that is not a public key. The text states why, and contains nothing of the line."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key whose structure is valid."""

    # The algorithm's name.
    type: str
    # Canonical base64.
    blob: str
    # As written, or empty.
    options: str = ""
    # One printable line.
    comment: str = ""

    @property
    def material(self) -> str:
        """`type base64`, the form of `known_hosts` and of a report."""
        return f"{self.type} {self.blob}"


def host_key(text: str) -> str:
    """Return `text`, a host's public key as `type base64`, in canonical form.

    Raises InvalidKeyError for anything else, including security-key and certificate types, which no notebook has.
    """
    words = text.split(" ")
    if len(words) != 2:
        raise InvalidKeyError("a host key is two words, `type base64`")
    if words[0] not in PLAIN_TYPES:
        raise InvalidKeyError(f"the type of a host key is one of {', '.join(sorted(PLAIN_TYPES))}")
    return _key(*words).material


def public_key(line: str) -> PublicKey:
    """Return the key on `line` of an `authorized_keys` file, with any options.

    Raises InvalidKeyError. The caller skips empty lines and comments.
    """
    line = line.strip(" \t\r\n")
    if len(line) > LONGEST_LINE:
        raise InvalidKeyError(f"longer than {LONGEST_LINE} characters")
    if not all(character.isprintable() or character == "\t" for character in line):
        raise InvalidKeyError("a character that cannot be printed")
    if "PRIVATE KEY" in line:
        raise InvalidKeyError(
            "part of a private key, which must never leave its owner: put the .pub file here, and make a new key"
        )
    options = ""
    first, rest = _split(line)
    if first not in KEY_TYPES:
        options, line = _options(line)
        first, rest = _split(line)
    if first not in KEY_TYPES:
        raise InvalidKeyError("no known key type, such as ssh-ed25519, at its start or after its options")
    blob, comment = _split(rest)
    key = _key(first, blob)
    return PublicKey(key.type, key.blob, options, comment)


def central_key(line: str) -> PublicKey:
    """Return the key on `line` of a central parameter: as `public_key`, but with restricting options only.

    Raises InvalidKeyError for options that admit more than the user whom the parameter names (`cert-authority`,
    `principals`), or that grant what a line without options lacks (`environment`, `tunnel`, `no-touch-required`).
    """
    key = public_key(line)
    for name, value in option_names(key.options):
        if name not in (NARROWING_WITH_VALUE if value else NARROWING):
            raise InvalidKeyError(f"the option {name[:40]!r}, which central keys may not have (docs/keys.md)")
    return key


def key_fields(key: PublicKey) -> tuple[bytes, ...]:
    """Return the binary fields of a key that is no certificate, without the type in front (RFC 4251 §5, `string`)."""
    wire = _Wire(b64decode(key.blob))
    wire.text()
    return tuple(wire.rest())


@dataclass(frozen=True, slots=True)
class Admitted:
    """Central keys for one notebook."""

    # `authorized_keys` lines by user.
    lines: tuple[tuple[str, tuple[str, ...]], ...] = ()
    # The first problem found.
    problem: Problem | None = None


def admitted(users: Iterable[str], texts: Mapping[str, str], path: str, notebook: str) -> Admitted:
    """Return the keys of `users` for `notebook` from `texts`, the parameters under `path` by user.

    A line that is not a key is left out and named in the problem; the others are admitted. The comment of every line
    becomes its user's name, so that sshd's log and the file show whose key it is.
    """
    lines: list[tuple[str, tuple[str, ...]]] = []
    problems: list[Problem] = []
    for user in users:
        if user not in texts:
            problems.append(_missing(user, path))
        elif refused := _refused(user, texts[user], path, notebook):
            problems.append(refused)
        else:
            keys, malformed = _central_keys(user, texts[user], path)
            problems += malformed
            lines.append((user, keys))
    return Admitted(tuple(lines), problems[0] if problems else None)


def _missing(user: str, path: str) -> Problem:
    return Problem(
        "central-key-missing",
        f"There is no central key of {user}: put it there with aws ssm put-parameter --type String "
        f"--name {path}/{user} --value file://KEY.pub, or take {user} out of the notebook's tag.",
    )


def _refused(user: str, text: str, path: str, notebook: str) -> Problem | None:
    """Return why no key of the parameter may enter the notebook: its first line lists others, or cannot be read.

    A line that looks like such a list, wherever it stands, was meant to restrict: it is never read as a comment.
    """
    for number, line in enumerate(text.splitlines(), 1):
        if not _LOOKS_LIKE_NOTEBOOKS.match(line):
            continue
        found = _NOTEBOOKS_LINE.fullmatch(line)
        try:
            patterns = notebook_patterns(found[1]) if found and number == 1 else None
        except InvalidPatternError:
            patterns = None
        if patterns is None:
            return Problem(
                "central-key-malformed",
                f"Line {number} of {path}/{user} is no list of notebooks, so its keys enter none: make it the first line, "
                "like `# notebooks: team-a-* box-7`, with letters, digits, hyphens, * and ? in each name.",
            )
        if not patterns.match(notebook):
            return Problem(
                "central-key-not-here",
                f"The first line of {path}/{user} does not list {notebook}, so the keys of {user} do not enter it: "
                f"an admin adds it there, or take {user} out of the notebook's tag.",
            )
    return None


def _central_keys(user: str, text: str, path: str) -> tuple[tuple[str, ...], list[Problem]]:
    keys: list[str] = []
    malformed: list[Problem] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            key = central_key(line)
        except InvalidKeyError as reason:
            malformed.append(Problem("central-key-malformed", f"Line {number} of {path}/{user} is left out: {reason}."))
        else:
            keys.append(" ".join(filter(None, (key.options, key.material, user))))
    return tuple(dict.fromkeys(keys)), malformed


def option_names(options: str) -> list[tuple[str, bool]]:
    """Return the names of `options` in lower case, each with whether it has a value."""
    names = []
    while options:
        end = _end(options, ",")
        name, equals, _ = options[:end].partition("=")
        names.append((name.lower(), bool(equals)))
        options = options[end + 1 :]
    return names


def _split(text: str) -> tuple[str, str]:
    first, _, rest = text.replace("\t", " ").partition(" ")
    return first, rest.strip(" ")


def _options(line: str) -> tuple[str, str]:
    """Split `line` where its options end: at the first space outside quotes."""
    end = _end(line, " \t")
    return line[:end], line[end:].strip(" \t")


def _end(text: str, stops: str) -> int:
    """Return the index of the first of `stops` outside double quotes, exactly as sshd reads them (`\\"` is no quote)."""
    quoted = False
    at = 0
    while at < len(text) and (quoted or text[at] not in stops):
        if text.startswith('\\"', at):
            at += 1
        elif text[at] == '"':
            quoted = not quoted
        at += 1
    return min(at, len(text))


def _key(type_: str, blob: str) -> PublicKey:
    try:
        raw = b64decode(blob, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidKeyError("what follows the type is not base64: perhaps the line was cut or wrapped") from None
    _check(type_, _Wire(raw))
    return PublicKey(type_, b64encode(raw).decode("ascii"))


class _Wire:
    """Reads the binary form, field by field (RFC 4251 §5)."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._at = 0

    def text(self) -> bytes:
        """Read one `string`: four bytes of length, then as many bytes."""
        start = self._at + 4
        end = start + int.from_bytes(self._raw[self._at : start], "big")
        if start > len(self._raw) or end > len(self._raw):
            raise InvalidKeyError("its base64 ends too early: perhaps the line was cut or wrapped")
        self._at = end
        return self._raw[start:end]

    def rest(self) -> Iterator[bytes]:
        """Read what is left, as fields."""
        while self._at < len(self._raw):
            yield self.text()

    def end(self) -> None:
        if self._at != len(self._raw):
            raise InvalidKeyError("its base64 holds more than a key")


def _check(type_: str, wire: _Wire) -> None:
    """Raise InvalidKeyError unless `wire` is exactly one key of `type_`, of a valid size."""
    if wire.text() != type_.encode("ascii"):
        raise InvalidKeyError("its base64 holds a key of another type than the line says")
    certificate = type_.endswith(CERTIFICATE)
    if certificate:
        wire.text()  # the nonce, PROTOCOL.certkeys
    _check_numbers(type_, wire)
    if type_.startswith("sk-"):
        wire.text()  # the application, PROTOCOL.u2f
    if not certificate:  # sshd verifies the rest of a certificate with its authority's key
        wire.end()


def _check_numbers(type_: str, wire: _Wire) -> None:
    if "ed25519" in type_:
        if len(wire.text()) != 32:
            raise InvalidKeyError("an Ed25519 key has 32 bytes")
    elif "ecdsa" in type_:
        curve = type_.split(CERTIFICATE)[0].split("@")[0].rsplit("-", 1)[1]
        if wire.text() != curve.encode("ascii"):
            raise InvalidKeyError("an ECDSA key on another curve than its type says")
        point = wire.text()
        if len(point) != 1 + 2 * CURVES[curve] or point[0] != 4:  # uncompressed, SEC 1 §2.3.3
            raise InvalidKeyError("an ECDSA key whose point has a wrong size")
    else:
        exponent, modulus = (int.from_bytes(wire.text(), "big", signed=True) for _ in range(2))
        if exponent < 3 or modulus.bit_length() < SMALLEST_RSA_BITS or modulus < 0:
            raise InvalidKeyError(
                f"an RSA key of fewer than {SMALLEST_RSA_BITS} bits: make another one, of type ed25519"
            )
