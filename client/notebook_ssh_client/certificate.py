"""`certificate HOST`, which ssh runs before it connects to a notebook (`Match exec`): is there a good certificate?

Exit code 0 makes ssh use the client's key and the certificate for HOST; any other, the user's own keys alone. The time
that this takes is spent before each connection, so a good certificate is found without the modules that ask for one.
"""

from __future__ import annotations

import os
import sys
import time

from notebook_ssh_client import certificate_store, files, messages
from notebook_ssh_client.errors import EXIT_FAILURE, EXIT_USAGE, CliError
from notebook_ssh_client.ssh_address import HOST_SUFFIX, normalize_host

TYPE_CHECKING = False
if TYPE_CHECKING:
    from notebook_ssh_client.certificate_store import Refusal

# Seconds for all of it: ssh waits, also where credentials come from a program that hangs.
LIMIT_S = 15.0

# Seconds for which it is remembered that this was not enough.
REMEMBERED_S = 60


def main(argv: list[str], home: str) -> int:
    """Run `certificate HOST`."""
    if argv[:1] == [certificate_store.PROBE]:
        return 0
    if len(argv) != 1:
        raise CliError("usage: notebook-ssh certificate %h (called by ssh, for Match exec)", EXIT_USAGE)
    host = argv[0].strip("'").lower()
    host = normalize_host(host if host.endswith(HOST_SUFFIX) else host + HOST_SUFFIX)
    if has_good_certificate(home, host, time.time()):
        return 0
    os.close(messages.take_standard_input())
    return _obtain_in_time(home, host)


def has_good_certificate(home: str, host: str, now: float) -> bool:
    """Return whether there is a certificate for `host` that need not be renewed yet. Raises CliError."""
    public_key = certificate_store.read_public_key(home)
    certificate = certificate_store.read_certificate(home, host, public_key) if public_key else None
    return certificate is not None and certificate.is_good(now) and not certificate_store.is_doubted(home, host)


def _obtain_in_time(home: str, host: str) -> int:
    """Get a certificate in a thread, and return the exit code: after LIMIT_S, ssh goes on without one."""
    import threading

    results: list[int] = []

    def run() -> None:
        try:
            results.append(obtain(home, host))
        except (CliError, OSError) as error:
            messages.report(f"no certificate for {host}: {error}")
            results.append(EXIT_FAILURE)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(LIMIT_S)
    if results:
        return results[0]
    message = f"there was no answer within {LIMIT_S:g} s; check your network, and where your AWS credentials come from"
    certificate_store.write_refusal(home, host, certificate_store.UNREACHABLE, message, REMEMBERED_S)
    messages.report(f"no certificate for {host}: {message}")
    sys.stderr.flush()
    os._exit(EXIT_FAILURE)  # without waiting for what hangs


def obtain(home: str, host: str) -> int:
    """Renew the certificate for `host` if that is needed; return 0 if there is one that is valid now. Raises CliError."""
    # The others that connect at the same time wait, and find what the first one got.
    with files.lock(certificate_store.lock_path(home, host)):
        now = time.time()
        if has_good_certificate(home, host, now):
            return 0
        refusal = certificate_store.read_refusal(home, host, now)
        if refusal is None:
            refusal = _renew(home, host)
            if refusal is None:
                return 0
            _tell(host, refusal)
        elif not _has_other_keys():
            _tell(host, refusal)
    return 0 if _is_still_valid(home, host) else EXIT_FAILURE


def _renew(home: str, host: str) -> Refusal | None:
    from notebook_ssh_client import certificate_request

    public_key = certificate_request.ensure_key(home)
    try:
        certificate = certificate_request.request(home, host, public_key)
    except certificate_request.CertificateError as error:
        certificate_store.write_refusal(home, host, error.code, str(error), error.seconds)
        return certificate_store.last_refusal(home, host)
    certificate_store.write_certificate(home, host, certificate)
    return None


def _tell(host: str, refusal: Refusal) -> None:
    """Report why there is no certificate, unless `proxy` does, or there is nothing to do about it."""
    if refusal.code not in {certificate_store.NOT_OFFERED} | certificate_store.OF_THE_NOTEBOOK:
        messages.report(f"no certificate for {host}: {refusal.message}. ssh goes on with your other keys")


def _is_still_valid(home: str, host: str) -> bool:
    """Return whether the certificate that could not be renewed is valid for a moment longer."""
    public_key = certificate_store.read_public_key(home)
    certificate = certificate_store.read_certificate(home, host, public_key) if public_key else None
    return certificate is not None and certificate.is_valid(time.time())


def _has_other_keys() -> bool:
    """Return whether the user has keys that ssh finds by itself: in an agent, or by their usual names."""
    if os.environ.get("SSH_AUTH_SOCK"):
        return True
    try:
        return any(name.startswith("id_") and not name.endswith(".pub") for name in os.listdir(files.ssh_dir()))
    except OSError:
        return False
