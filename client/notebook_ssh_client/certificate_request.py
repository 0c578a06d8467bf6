"""Asks the stack for a certificate, and makes the key that it is for.

ssh waits for this before it connects. So there is one attempt, nothing is ever asked of the user, and whatever fails is
a `CertificateError`, after which ssh goes on with the user's own keys.
"""

from __future__ import annotations

import os
import subprocess

from notebook_ssh_client import certificate_store, credentials, files, lookup, name_list, settings
from notebook_ssh_client.api import ApiClient, ApiError, to_cli_error
from notebook_ssh_client.certificate_store import CREDENTIALS, DENIED, INVALID, NOT_OFFERED, UNREACHABLE, key_path
from notebook_ssh_client.errors import EXIT_UNKNOWN_NOTEBOOK, EXIT_UNREACHABLE, CliError
from notebook_ssh_client.settings import Stack
from notebook_ssh_client.user_certificate import InvalidCertificateError, UserCertificate, parse_certificate

# Seconds to connect and to read. The stack's first answer after a while takes two or three.
TIMEOUT_S = (3, 8)

# Seconds for which a reason is remembered: one that an admin changes, one that the user changes (a login is seen at
# once, by the files that it writes), one of the notebook's or the network's, and a stack without certificates.
DENIED_S, CREDENTIALS_S, PASSING_S, NOT_OFFERED_S = 900, 300, 60, 3600


class CertificateError(Exception):
    """There is no certificate. code: the API's, or one of certificate_store. seconds: how long that is remembered."""

    def __init__(self, code: str, message: str, seconds: int) -> None:
        super().__init__(message)
        self.code = code
        self.seconds = seconds


def ensure_key(home: str) -> str:
    """Return the text of the client's public key; make the key if there is none. Raises CliError."""
    with files.lock(key_path(home) + ".lock"):
        found = certificate_store.read_public_key(home)
        return found if found is not None else _make_key(home)


def _make_key(home: str) -> str:
    path = key_path(home)
    new = f"{path}.{os.getpid()}.new"
    try:
        _keygen("-q", "-t", "ecdsa", "-b", "256", "-N", "", "-C", "notebook-ssh", "-f", new)
        os.replace(f"{new}.pub", f"{path}.pub")
        os.replace(new, path)
    finally:
        for left in (new, f"{new}.pub"):
            if os.path.exists(left):
                os.unlink(left)
    certificate_store.clear(home)  # they were for another key
    made = certificate_store.read_public_key(home)
    if made is None:
        raise CliError(f"ssh-keygen made no ECDSA key at {path}; check that this folder can be written")
    return made


def _keygen(*arguments: str) -> None:
    try:
        subprocess.run(
            ["ssh-keygen", *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=True
        )
    except FileNotFoundError as error:
        raise CliError("ssh-keygen was not found on PATH; install the OpenSSH client") from error
    except subprocess.SubprocessError as error:
        reason = str(getattr(error, "stderr", "") or error).strip()
        raise CliError(
            f"ssh-keygen could not make a key ({reason}); check that {arguments[-1]} can be written"
        ) from error


def request(home: str, host: str, public_key: str) -> UserCertificate:
    """Return a new certificate for `host` and this key, from the stack that has the notebook. Raises CertificateError."""
    try:
        stack, name = _find(home, host)
        api = _client(stack)
        answer = api.post(f"/notebooks/{name}/certificate", {"public_key": public_key.rstrip("\n")})
    except ApiError as error:
        raise _refused(error, stack, host) from error
    except CliError as error:
        raise _failed(error) from error
    line = answer.get("certificate") if isinstance(answer, dict) else None
    try:
        return parse_certificate(str(line), public_key)
    except InvalidCertificateError as error:
        message = f"what stack {stack.name} returned cannot be used: {error}; report it to the stack's admin"
        raise CertificateError(INVALID, message, CREDENTIALS_S) from error


def _find(home: str, host: str) -> tuple[Stack, str]:
    """Return the stack of the notebook, and the notebook's name as SageMaker spells it: IAM compares capitals."""
    name, stacks = settings.resolve_host(host, settings.load_settings(home).stacks)
    names, offers = name_list.load_names(home), name_list.load_offers(home)
    for stack in stacks:
        listed = name_list.spelled(name, names.get(stack.label, []))
        if listed:
            _require_offer(stack, offers)
            return stack, listed
    found = lookup.fetch(home, host, _client)
    _require_offer(found.stack, offers)
    return found.stack, found.name


def _require_offer(stack: Stack, offers: list[str]) -> None:
    if stack.label not in offers:
        raise CertificateError(NOT_OFFERED, f"stack {stack.name} has no certificates", NOT_OFFERED_S)


def _client(stack: Stack) -> ApiClient:
    return ApiClient(stack, timeout_s=TIMEOUT_S, attempts=1, may_ask=False)


def _refused(error: ApiError, stack: Stack, host: str) -> CertificateError:
    who, message = credentials.identity(stack.profile), error.message.rstrip(".")
    if error.status in (401, 403) and not error.code:
        if "missing authentication token" in message.lower():
            return CertificateError(NOT_OFFERED, f"stack {stack.name} has no certificates", NOT_OFFERED_S)
        cause = to_cli_error(error, stack)
        if any(word in message.lower() for word in ("expired", "token", "signature")):
            return CertificateError(CREDENTIALS, str(cause), CREDENTIALS_S)
        return CertificateError(
            DENIED,
            f"{who} may not log in to {host}: the admin of stack {stack.name} adds it to LoginPrincipals and to a policy "
            "that names the notebook",
            DENIED_S,
        )
    if error.status == 403:
        return CertificateError(error.code or DENIED, f"{who}: {message}", DENIED_S)
    return CertificateError(error.code or UNREACHABLE, message, PASSING_S)


def _failed(error: CliError) -> CertificateError:
    if error.exit_code == EXIT_UNKNOWN_NOTEBOOK:
        return CertificateError("unknown-notebook", str(error), PASSING_S)
    if error.exit_code == EXIT_UNREACHABLE:
        return CertificateError(UNREACHABLE, str(error), PASSING_S)
    return CertificateError(CREDENTIALS, str(error), CREDENTIALS_S)
