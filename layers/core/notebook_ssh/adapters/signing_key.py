"""The KMS keys that sign certificates: nothing but their signatures and public keys ever leaves KMS."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from notebook_ssh.adapters.clients import AWS_ERRORS, call, client, code_of
from notebook_ssh.errors import NotAllowedError, Problem, TerminalError

UNAVAILABLE = frozenset({"DisabledException", "KMSInvalidStateException", "NotFoundException"})
"""Codes for a key that is disabled, about to be deleted, or gone (KMS API Reference, Sign, "Errors")."""


def sign(key: str, message: bytes) -> bytes:
    """Return the DER signature of a message of at most 4,096 bytes, by the key with the ARN `key`.

    Raises RetryableError, or TerminalError when the key cannot be used until an admin does something.
    """
    sign = client("kms").sign
    response = _of(
        key, lambda: call(sign, KeyId=key, Message=message, MessageType="RAW", SigningAlgorithm="ECDSA_SHA_256")
    )
    return bytes(response["Signature"])


def public_key_info(key: str) -> bytes:
    """Return the public key of the key with the ARN `key`, as SubjectPublicKeyInfo in DER. Raises as `sign` does."""
    return bytes(_of(key, lambda: call(client("kms").get_public_key, KeyId=key))["PublicKey"])


def _of(key: str, ask: Callable[[], Any]) -> Any:
    try:
        return ask()
    except NotAllowedError as denied:
        raise TerminalError(_unavailable(key, "its policy denies the stack to use it")) from denied
    except AWS_ERRORS as error:
        if code_of(error) in UNAVAILABLE:
            raise TerminalError(_unavailable(key, "it is disabled, about to be deleted, or gone")) from error
        raise


def _unavailable(key: str, why: str) -> Problem:
    return Problem(
        "signing-key-unavailable",
        f"The key {key.rpartition('/')[2]} signs no certificate, because {why}: an admin restores it (docs/security.md,"
        " “The signing key”). Public keys in files work as before.",
    )
