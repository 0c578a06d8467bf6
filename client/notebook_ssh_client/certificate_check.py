"""The check of `doctor` that is about certificates: the client's key, the certificate for a notebook, the last refusal."""

from __future__ import annotations

import time
from typing import Any

from notebook_ssh_client import certificate_store, name_list, ssh_files
from notebook_ssh_client.certificate_store import Refusal
from notebook_ssh_client.errors import CliError
from notebook_ssh_client.lookup import NotebookInfo
from notebook_ssh_client.ssh_address import HOST_SUFFIX
from notebook_ssh_client.user_certificate import UserCertificate

OWN_KEYS = "ssh uses your own keys"


def check(home: str, notebook: NotebookInfo, now: float) -> list[dict[str, Any]]:
    """Return the check, or nothing where the stack has no certificates. The next connection then asks the stack again."""
    if notebook.stack.label not in name_list.load_offers(home):
        return []
    name = notebook.name.lower()
    hosts = (f"{name}{HOST_SUFFIX}", f"{name}.{notebook.stack.label.lower()}{HOST_SUFFIX}")
    try:
        found = _check(home, hosts, now)
        for host in hosts:
            certificate_store.forget_refusals(home, host)
    except CliError as error:
        found = _result("failed", f"{error}", "until then, " + OWN_KEYS)
    return [found]


def _check(home: str, hosts: tuple[str, ...], now: float) -> dict[str, Any]:
    if not ssh_files.uses_certificates(home):
        return _result("waiting", f"ssh on this machine was not seen to obtain certificates: {OWN_KEYS}", "")
    public_key = certificate_store.read_public_key(home)
    certificates = [certificate_store.read_certificate(home, host, public_key) for host in hosts if public_key]
    latest = max(filter(None, certificates), key=lambda certificate: certificate.valid_before, default=None)
    refusals = [certificate_store.last_refusal(home, host) for host in hosts]
    refusal = max(filter(None, refusals), key=lambda refusal: refusal.at, default=None)
    if latest is not None and latest.is_valid(now):
        return _result(
            "ok", f"a certificate for {latest.key_id} until {_iso(latest.valid_before)}, serial {latest.serial}"
        )
    if refusal is not None:
        return _refused(refusal)
    return _not_yet(public_key, latest)


def _refused(refusal: Refusal) -> dict[str, Any]:
    remedy = f"the next ssh asks again; until it gets one, {OWN_KEYS}"
    return {**_result("failed", refusal.message, remedy), "since": _iso(refusal.at)}


def _not_yet(public_key: str | None, latest: UserCertificate | None) -> dict[str, Any]:
    if latest is not None:
        return _result("waiting", f"the certificate ended at {_iso(latest.valid_before)}; the next ssh renews it")
    key = "the client's key is there, and the" if public_key else "the"
    return _result("waiting", f"{key} next ssh asks for a certificate")


def _result(result: str, reason: str, remedy: str = "") -> dict[str, Any]:
    return {"check": "certificate", "result": result, "since": None, "reason": reason, "remedy": remedy}


def _iso(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
