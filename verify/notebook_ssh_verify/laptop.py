"""What a user has: curl, ssh, and the client, in a folder of this run. The user's own ~/.ssh is neither read nor written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

from notebook_ssh_verify.account import Account

LIMIT_S = 120
"""Seconds for one program."""


class Response(NamedTuple):
    """What the API answered. status: 0 if it did not answer; body: then what curl said."""

    status: int
    body: str

    def json(self) -> Any:
        """Return the body as JSON; None if it is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


class Laptop:
    """The folder with an SSH key, and the programs that are run there. It is removed at the end.

    folder: a new one, whose parent exists; None: a temporary one.
    """

    def __init__(self, account: Account, environ: Mapping[str, str], folder: Path | None = None) -> None:
        self._account, self._environ = account, dict(environ)
        self.folder = folder or Path(tempfile.mkdtemp(prefix="nbssh-verify-"))
        self.folder.mkdir(mode=0o700, exist_ok=True)
        self._config = self.folder / "config"
        self.missing = [
            name for name in ("curl", "ssh", "ssh-keygen") if not shutil.which(name, path=environ.get("PATH"))
        ]
        self.public_key = ""
        if "ssh-keygen" not in self.missing:
            words = [
                "ssh-keygen",
                "-q",
                "-t",
                "ed25519",
                "-N",
                "",
                "-C",
                "nbssh-verify",
                "-f",
                str(self.folder / "key"),
            ]
            subprocess.run(words, check=True, stdin=subprocess.DEVNULL, env=self._environ)
            self.public_key = (self.folder / "key.pub").read_text().strip()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def curl(self, url: str) -> Response:
        """Return what the API answers at `url`, asked by curl and signed as docs/api.md says."""
        keys = self._account.keys()
        # From standard input, since every user of this machine may read a process's words.
        settings = [
            f'aws-sigv4 = "aws:amz:{self._account.region}:execute-api"',
            f'user = "{keys.access_key}:{keys.secret_key}"',
            *([f'header = "x-amz-security-token: {keys.token}"'] if keys.token else []),
        ]
        words = [
            "curl",
            "--silent",
            "--show-error",
            "--max-time",
            "60",
            "--config",
            "-",
            "--write-out",
            "\n%{http_code}",
            url,
        ]
        done = self._run(words, "\n".join(settings) + "\n")
        body, _, status = done.stdout.rpartition("\n")
        answer = Response(int(status), body) if status.isdigit() and int(status) else Response(0, done.stderr.strip())
        self._account.note(f"curl {url}", f"{answer.status} {answer.body}")
        return answer

    def set_up(self, stack: str, api: str) -> str | None:
        """Set the client up for the stack, in this folder; return why that failed. api: the stack's ApiUrl."""
        self._environ |= {"NOTEBOOK_SSH_HOME": str(self.folder / "client"), "AWS_REGION": self._account.region}
        if self._environ.get("AWS_ENDPOINT_URL"):  # an account on this machine, which API Gateway's DNS does not know
            place = urlsplit(api)
            name = (place.hostname or "").partition(".")[0]
            endpoint = self._environ["AWS_ENDPOINT_URL"]
            self._environ["AWS_ENDPOINT_URL_EXECUTE_API"] = f"{endpoint}/_aws/execute-api/{name}{place.path}"
        self._config.write_text("")
        words = [sys.executable, "-I", "-m", "notebook_ssh_client", "setup", "--stack", stack]
        done = self._run([*words, "--region", self._account.region, "--ssh-config", str(self._config)])
        return None if done.returncode == 0 else done.stderr.strip() or done.stdout.strip()

    def ssh(self, name: str, command: str) -> subprocess.CompletedProcess[str]:
        """Log in to a notebook by its name, with the key of this folder, and run a command."""
        options = ["-i", str(self.folder / "key"), "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes"]
        done = self._run(["ssh", "-F", str(self._config), *options, name, command])
        self._account.note(f"ssh {name} {command}", f"exit status {done.returncode} {done.stdout} {done.stderr}")
        return done

    def _run(self, words: list[str], given: str = "") -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                words,
                input=given,
                capture_output=True,
                text=True,
                errors="replace",
                env=self._environ,
                timeout=LIMIT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return subprocess.CompletedProcess(words, 255, "", str(error))


def release_folder(environ: Mapping[str, str]) -> Path:
    """Return where a release's files are: beside this program, or where NBSSH_RELEASE says (a checkout's build)."""
    return Path(environ.get("NBSSH_RELEASE") or os.path.dirname(os.path.abspath(sys.argv[0])))
