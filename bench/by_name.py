"""What `ssh name` takes through the client beside a bare `ssh`, to a real sshd on this machine."""

from __future__ import annotations

import getpass
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from laptop import Laptop, Sshd, make_client_environment, make_laptop, serve_api
from measure import seconds

NAME = "my-notebook"
KEYS = {"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": "example", "AWS_SESSION_TOKEN": "example"}


@dataclass(frozen=True, slots=True)
class Logins:
    """Medians in seconds. cached: by a remembered address. asked: by one that the API was asked for.

    botocore: what `import botocore.session` takes more than the interpreter alone.
    """

    bare: float
    cached: float
    asked: float
    botocore: float


def logins() -> Logins:
    """A login of each kind, several times in turn, by the same ssh and the same key."""
    with _a_laptop() as (laptop, sshd):
        remembered = laptop.home / "remembered"
        by_name = ["ssh", f"{getpass.getuser()}@{NAME}", "true"]
        known = laptop.folder / "known"
        known.write_text(f"[127.0.0.1]:{sshd.port} {sshd.key}\n")
        bare = ["ssh", "-o", f'UserKnownHostsFile="{known}"', "-p", str(sshd.port), "127.0.0.1", "true"]

        def asking() -> None:
            shutil.rmtree(remembered)
            _ran(laptop, by_name)

        _ran(laptop, by_name)
        python = [str(laptop.python), "-I", "-c"]
        nothing, _ = seconds(lambda: _ran(laptop, [*python, ""]))
        session, _ = seconds(lambda: _ran(laptop, [*python, "import botocore.session"]))
        return Logins(
            bare=seconds(lambda: _ran(laptop, bare))[0],
            cached=seconds(lambda: _ran(laptop, by_name))[0],
            asked=seconds(asking)[0],
            botocore=session - nothing,
        )


@contextmanager
def _a_laptop() -> Iterator[tuple[Laptop, Sshd]]:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        laptop = make_laptop(Path(folder), make_client_environment(Path(folder) / "environment"), KEYS)
        api, sshd = serve_api(), Sshd(Path(folder) / "sshd", laptop.key)
        try:
            api.notebooks[NAME] = sshd.described(NAME)
            laptop.set_up(api)
            yield laptop, sshd
        finally:
            sshd.stop()
            api.server.shutdown()
            api.server.server_close()


def _ran(laptop: Laptop, command: list[str]) -> subprocess.CompletedProcess[str]:
    done = laptop.run(*command)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}: {done.stderr}")
    return done
