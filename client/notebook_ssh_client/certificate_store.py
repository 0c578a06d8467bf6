"""The client's own key, the certificates for it, and why there is none: files that ssh and the command `certificate` read.

    id_ecdsa, id_ecdsa.pub      the key, made once
    certificates/HOST-cert.pub  the certificate for one notebook, by the name that ssh uses
    certificates/HOST.refused   why there is none, for a bounded time
    certificates/HOST.doubtful  is there after a connection so short that the notebook may have refused the certificate

The command reads them before each connection to a notebook, so this imports nothing that loads slowly.
"""

from __future__ import annotations

import os
import stat
import time
from contextlib import suppress

from notebook_ssh_client import files
from notebook_ssh_client.errors import CliError
from notebook_ssh_client.ssh_address import normalize_host
from notebook_ssh_client.user_certificate import (
    InvalidCertificateError,
    UserCertificate,
    is_public_key,
    parse_certificate,
)

KEY_NAME = "id_ecdsa"
DIRECTORY_NAME = "certificates"
CERTIFICATE_SUFFIX = "-cert.pub"
REFUSAL_SUFFIX = ".refused"
DOUBT_SUFFIX = ".doubtful"

# Seconds for which a certificate is not doubted: so often at most it is renewed for commands that take no time.
UNDOUBTED_S = 300

# The first line of every refusal.
FORMAT = "notebook-ssh 1"

# Codes of refusals that are not the API's: the stack has no certificates; IAM denies the request; no usable answer came;
# there are no valid credentials; what came is no certificate for the key.
NOT_OFFERED, DENIED, UNREACHABLE = "not-offered", "access-denied", "unreachable"
CREDENTIALS, INVALID = "credentials", "invalid-certificate"

# Codes about the notebook: `proxy` reports these itself.
OF_THE_NOTEBOOK = frozenset({"unknown-notebook", "off", "expired", "invalid-tag"})

# The argument with which `setup` has ssh run the command `certificate`, to see that this works.
PROBE = "--works"

# Mode bits of the group and of everyone: ssh refuses a private key that has any of them (ssh(1), FILES).
_OTHERS = 0o077

# What decides which AWS identity the client calls with, apart from files (docs.aws.amazon.com, "environment variables").
_IDENTITY_VARIABLES = (
    "AWS_PROFILE",
    "AWS_ACCESS_KEY_ID",
    "AWS_SESSION_TOKEN",
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
)

# Below ~/.aws: what `aws configure`, `aws sso login`, `aws login` and the assumption of a role change.
_CREDENTIAL_FILES = ("config", "credentials", "sso/cache", "cli/cache", "login/cache")


class Refusal:
    """Why there is no certificate for a notebook. Times are epoch seconds."""

    __slots__ = ("at", "code", "identity", "message", "until")

    def __init__(self, code: str, message: str, *, at: float, until: float, identity: int) -> None:
        self.code = code  # of the API (docs/api.md), or one of those above
        self.message = message  # a sentence that says what to do
        self.at = at
        self.until = until  # when the stack is asked again
        self.identity = identity  # of the AWS identity that was refused: see `identity_mark`


def key_path(home: str) -> str:
    """Return the path of the client's private key."""
    return os.path.join(home, KEY_NAME)


def certificate_path(home: str, host: str) -> str:
    """Return the path of the certificate for `host`. Raises CliError if it is no notebook's host name."""
    return os.path.join(directory(home), normalize_host(host) + CERTIFICATE_SUFFIX)


def directory(home: str) -> str:
    """Return the folder of the certificates."""
    return os.path.join(home, DIRECTORY_NAME)


def read_public_key(home: str) -> str | None:
    """Return the text of the client's public key, or None if there is no usable pair of keys yet.

    Raises CliError if others than this user can read the private key, or change what is in the folder.
    """
    files.require_private(home)
    path = key_path(home)
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None
    if os.name != "nt":
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            raise CliError(f"{path} must be a file of your own; move it away: the next connection makes another key")
        if status.st_mode & _OTHERS:
            raise CliError(f"other users can read your private key {path}; run: chmod 600 '{path}'")
    text = files.read_text(f"{path}.pub")
    return text if text is not None and is_public_key(text) else None


def read_certificate(home: str, host: str, public_key: str) -> UserCertificate | None:
    """Return the certificate for `host` and this key, whatever its time; None if there is none that can be read.

    Raises CliError if others can change what is in the folder.
    """
    files.require_private(directory(home))
    text = files.read_text(certificate_path(home, host))
    try:
        return parse_certificate(text, public_key) if text is not None else None
    except InvalidCertificateError:
        return None


def write_certificate(home: str, host: str, certificate: UserCertificate) -> None:
    """Write the certificate for `host`, and forget why there was none."""
    files.write_text(certificate_path(home, host), f"{certificate.line} {certificate.key_id}\n")
    believe(home, host)
    _delete(_refusal_path(home, host))


def doubt(home: str, host: str) -> bool:
    """Renew the certificate for `host` before the next connection, unless it is new or there is none; return whether.

    Its own times say that it is good, but the notebook may require another one since: it was made again under its name,
    or certificates were withdrawn.
    """
    try:
        is_new = os.stat(certificate_path(home, host)).st_mtime > time.time() - UNDOUBTED_S
    except FileNotFoundError:
        return False
    if not is_new:
        files.write_text(_doubt_path(home, host), "")
    return not is_new


def is_doubted(home: str, host: str) -> bool:
    """Return whether the certificate for `host` is to be renewed, although its own times say that it is good."""
    return os.path.exists(_doubt_path(home, host))


def believe(home: str, host: str) -> None:
    """Do not doubt the certificate for `host`."""
    _delete(_doubt_path(home, host))


def read_refusal(home: str, host: str, now: float) -> Refusal | None:
    """Return why there is no certificate for `host`, if that still counts at `now`: it is not too old, and the AWS
    identity that was refused is likely to be the same."""
    refusal = last_refusal(home, host)
    if refusal is None or not refusal.at <= now < refusal.until or refusal.identity != identity_mark():
        return None
    return None if _credentials_changed_at() > refusal.at else refusal


def last_refusal(home: str, host: str) -> Refusal | None:
    """Return why there was no certificate for `host` last, however long ago. A damaged file counts as none."""
    files.require_private(directory(home))
    text = files.read_text(_refusal_path(home, host))
    header, *lines = (text or "").split("\n")
    fields = dict(line.partition(" ")[::2] for line in lines)
    try:
        refusal = Refusal(
            fields["code"],
            fields["message"],
            at=float(fields["at"]),
            until=float(fields["until"]),
            identity=int(fields["identity"]),
        )
    except (KeyError, ValueError):
        return None
    return refusal if header == FORMAT and text and text.rstrip("\n").replace("\n", "").isprintable() else None


def write_refusal(home: str, host: str, code: str, message: str, seconds: int) -> None:
    """Remember for `seconds` why there is no certificate for `host`."""
    at = time.time()
    sentence = "".join(character if character.isprintable() else " " for character in message)
    lines = [FORMAT, f"at {at:.3f}", f"until {at + seconds:.3f}", f"identity {identity_mark()}", f"code {code}"]
    files.write_text(_refusal_path(home, host), "\n".join([*lines, f"message {sentence}"]) + "\n")
    believe(home, host)  # it is all there is


def forget_refusals(home: str, host: str | None = None) -> None:
    """Ask the stack again for the next connection: to `host`, or to all notebooks."""
    if host is not None:
        _delete(_refusal_path(home, host))
        return
    with suppress(FileNotFoundError):
        for name in os.listdir(directory(home)):
            if name.endswith(REFUSAL_SUFFIX):
                _delete(os.path.join(directory(home), name))


def lock_path(home: str, host: str) -> str:
    """Return the file that a process locks while it asks for the certificate of `host`."""
    return os.path.join(directory(home), normalize_host(host) + ".lock")


def clear(home: str) -> None:
    """Delete every certificate and refusal; the key stays."""
    import shutil

    shutil.rmtree(directory(home), ignore_errors=True)


def identity_mark() -> int:
    """Return a number that changes with the AWS identity in the environment. It is not possible to get that from it."""
    import zlib

    return zlib.crc32("\0".join(os.environ.get(name, "") for name in _IDENTITY_VARIABLES).encode("utf-8", "replace"))


def _credentials_changed_at() -> float:
    """Return when the user's AWS credentials changed last, epoch seconds: a login, or another profile."""
    folder = os.path.join(os.path.expanduser("~"), ".aws")
    paths = [os.path.join(folder, name) for name in _CREDENTIAL_FILES]
    paths += filter(None, (os.environ.get("AWS_CONFIG_FILE"), os.environ.get("AWS_SHARED_CREDENTIALS_FILE")))
    changed = 0.0
    for path in paths:
        with suppress(OSError):
            for entry in os.scandir(path) if os.path.isdir(path) else (path,):
                status = os.stat(entry)
                changed = max(changed, status.st_mtime if stat.S_ISREG(status.st_mode) else 0)
    return changed


def _refusal_path(home: str, host: str) -> str:
    return os.path.join(directory(home), normalize_host(host) + REFUSAL_SUFFIX)


def _doubt_path(home: str, host: str) -> str:
    return os.path.join(directory(home), normalize_host(host) + DOUBT_SUFFIX)


def _delete(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)
