"""Measures `ssh name` through the client against plain `ssh`, to a real sshd on this machine."""

from __future__ import annotations

import getpass
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from measure import cpu_ms, seconds_in_turn
from support.laptop import Authority, Laptop, Sshd, create_client_venv, create_laptop, start_api

NAME = "my-notebook"
ROUNDS = 15
KEYS = {"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": "example", "AWS_SESSION_TOKEN": "example"}


@dataclass(frozen=True, slots=True)
class Logins:
    """Medians in seconds."""

    bare: float  # plain ssh
    cached: float  # with a cached address
    fetched: float  # with an address fetched from the API
    botocore: float  # importing botocore.session, without starting the interpreter


def logins() -> Logins:
    """Measure each kind of login, with the same ssh and the same key."""
    with _laptop() as (laptop, sshd):
        addresses = laptop.home / "addresses"
        by_name = ["ssh", f"{getpass.getuser()}@{NAME}", "true"]
        known_hosts = laptop.folder / "known_hosts"
        known_hosts.write_text(f"[127.0.0.1]:{sshd.port} {sshd.host_key}\n")
        bare = ["ssh", "-o", f'UserKnownHostsFile="{known_hosts}"', "-p", str(sshd.port), "127.0.0.1", "true"]

        def log_in_without_cache() -> None:
            shutil.rmtree(addresses)
            _run(laptop, by_name)

        _run(laptop, by_name)
        python = [str(laptop.python), "-I", "-c"]
        acts = (
            lambda: _run(laptop, [*python, ""]),
            lambda: _run(laptop, [*python, "import botocore.session"]),
            lambda: _run(laptop, bare),
            lambda: _run(laptop, by_name),
            log_in_without_cache,
        )
        nothing, session, bare_s, cached, fetched = seconds_in_turn(acts, ROUNDS)
        return Logins(bare=bare_s, cached=cached, fetched=fetched, botocore=session - nothing)


def certificate_check() -> tuple[float, float]:
    """Median processor time in seconds of the command that ssh runs while a certificate is good, and of bare Python."""
    with _laptop(with_certificates=True) as (laptop, _):
        python = [str(laptop.python), "-I"]
        check = [*python, "-m", "notebook_ssh_client", "certificate", f"{NAME}.notebook"]
        _run(laptop, check)
        times = [
            (cpu_ms(check, laptop.environment), cpu_ms([*python, "-c", ""], laptop.environment)) for _ in range(ROUNDS)
        ]
        checked, bare = (statistics.median(column) / 1000 for column in zip(*times, strict=True))
        return checked, bare


@contextmanager
def _laptop(*, with_certificates: bool = False) -> Iterator[tuple[Laptop, Sshd]]:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        laptop = create_laptop(Path(folder), create_client_venv(Path(folder) / "environment"), KEYS)
        api, sshd = start_api(), Sshd(Path(folder) / "sshd", laptop.key)
        try:
            api.notebooks[NAME] = sshd.notebook_json(NAME)
            api.authority = Authority(Path(folder) / "authority") if with_certificates else None
            laptop.setup(api)
            yield laptop, sshd
        finally:
            sshd.stop()
            api.server.shutdown()
            api.server.server_close()


def _run(laptop: Laptop, command: list[str]) -> subprocess.CompletedProcess[str]:
    result = laptop.run(*command)
    if result.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {result.returncode}: {result.stderr}")
    return result
