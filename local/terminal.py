"""A terminal in which AWS is on this machine: its variables, and the programs that stand first in its PATH.

The people of the local run work in such terminals, and so does the person who reads one's file in. The programs are small
executables and the file is for any POSIX shell. In such a terminal `ssh` reads a configuration of the local run's own, and
`notebook-ssh setup` changes that one: nothing in ~/.ssh is written, or read but keys.
"""

from __future__ import annotations

import fcntl
import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Self

from emulator.process import PROJECT, PYTHON, REGION

CLIENT = PROJECT / "client"
COMMAND_LINES = PROJECT / ".venv"

FORGOTTEN = ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN", "NOTEBOOK_SSH_PROXY")
"""Variables of the person's own that would lead away from here."""

CURL = """\
# Addresses of API Gateway lead to this machine, as DNS would.
for word do
    shift
    case $word in
    https://*.execute-api.*/*)
        word=${word#https://}
        word=@endpoint@/_aws/execute-api/${word%%.*}/${word#*/}
        ;;
    esac
    set -- "$@" "$word"
done
exec @curl@ "$@"
"""

SSH = """\
# Port 22 of a private address is another one where this user may not listen on it. (With -W; for all else see -F.)
for word do
    shift
    case $word in
    127.*:22)
        port=$(sed -n 's/^ *Port //p' @ports@/"${word%:22}" 2>/dev/null)
        [ -z "$port" ] || word=${word%:22}:$port
        ;;
    esac
    set -- "$@" "$word"
done
exec @ssh@ -F @config@ "$@"
"""

NOTEBOOK_SSH = """\
# The configuration of ssh that it changes is the one that ssh reads here.
if [ "${1-}" = setup ]; then
    shift
    set -- setup --ssh-config @config@ "$@"
fi
exec @python@ -I -m notebook_ssh_client "$@"
"""


class Terminal:
    """A terminal of a person whose files are below `home`.

    endpoint: where AWS is. api: what the client takes for the address of the stack's API, with its stage.
    keys: AWS credentials, as variables. ports: the folder in which `emulator.network.Gate` says where port 22 is.
    authorities: the file with those that AWS's tools are to trust.
    """

    def __init__(
        self, home: Path, endpoint: str, api: str, keys: Mapping[str, str], ports: Path, authorities: Path | None = None
    ) -> None:
        self.home, self.programs, self.ports = home, home / "bin", ports
        self.config = home / ".ssh/config"
        self.client_home = home / ".ssh/notebook-ssh"
        self.variables = {
            "AWS_ENDPOINT_URL": endpoint,
            # Stands in for the DNS of API Gateway's host names, on a notebook too.
            "AWS_ENDPOINT_URL_EXECUTE_API": api,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            **keys,
            **({"AWS_CA_BUNDLE": str(authorities)} if authorities else {}),
            # Nothing of the person's own set-up, of AWS's real one least of all.
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
            "NOTEBOOK_SSH_HOME": str(self.client_home),
        }

    def set_up(self, identities: Sequence[Path]) -> Self:
        """Write what the terminal needs; the client is installed. identities: the keys that ssh offers."""
        endpoint = self.variables["AWS_ENDPOINT_URL"]
        self.home.joinpath(".ssh").mkdir(parents=True, exist_ok=True, mode=0o700)
        self.config.write_text(ssh_config(identities, self.home / ".ssh/known_hosts", self.ports))
        self.programs.mkdir()
        # Stands in for `pipx install ./client`, which would need a network.
        python = virtual_environment(self.home / ".client", CLIENT)
        self._write("notebook-ssh", NOTEBOOK_SSH, python=python, config=self.config)
        self._write("curl", CURL, endpoint=endpoint, curl=_real("curl"))
        self._write("ssh", SSH, ports=self.ports, ssh=_real("ssh"), config=self.config)
        for name in ("scp", "sftp"):
            self._write(
                name,
                '# They start ssh by a path of their own.\nexec @real@ -F @config@ "$@"\n',
                real=_real(name),
                config=self.config,
            )
        # By their places: with a folder of theirs in PATH, its python3 would be everybody's.
        sam, aws = COMMAND_LINES / "sam/bin/sam", COMMAND_LINES / "aws/bin/python"
        if sam.exists():
            self._write("sam", 'exec @sam@ "$@"\n', sam=sam)
        if aws.exists():
            # Version 1 of AWS's command line asks the real SQS, whatever AWS_ENDPOINT_URL says; not so with the option.
            self._write(
                "aws", 'exec @python@ -I -m awscli --endpoint-url @endpoint@ "$@"\n', python=aws, endpoint=endpoint
            )
        return self

    def _write(self, name: str, text: str, **places: Path | str) -> None:
        for place, value in places.items():
            text = text.replace(f"@{place}@", shlex.quote(str(value)))
        program = self.programs / name
        program.write_text(f"#!/bin/sh\n{text}")
        program.chmod(0o755)

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command in it, as its person."""
        return subprocess.run(
            words,
            cwd=self.home,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start a command in it, as its person; what it prints is in two pipes."""
        return subprocess.Popen(
            words,
            cwd=self.home,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def _environment(self) -> dict[str, str]:
        path = f"{self.programs}{os.pathsep}{os.environ['PATH']}"
        return {"HOME": str(self.home), **self.variables, "PATH": path}

    def file(self, more: Mapping[str, str]) -> str:
        """The text that makes a shell such a terminal, with `more` variables."""
        lines = [f"unset {' '.join(FORGOTTEN)}"]
        lines += [f"export {name}={shlex.quote(value)}" for name, value in (self.variables | dict(more)).items()]
        lines += [f'export {name}="127.0.0.1${{{name}:+,${name}}}"' for name in ("NO_PROXY", "no_proxy")]
        lines.append(f'export PATH={shlex.quote(str(self.programs))}:"$PATH"')
        return "\n".join(lines) + "\n"


def ssh_config(identities: Sequence[Path], known_hosts: Path, ports: Path) -> str:
    """What ssh reads in place of ~/.ssh/config, before `notebook-ssh setup` puts its section on top."""
    lines = [f"Include {_named(ports / '*')}", "Host *"]
    lines += [f"  IdentityFile {_named(identity)}" for identity in identities]
    lines += ["  IdentitiesOnly yes", f"  UserKnownHostsFile {_named(known_hosts)}"]
    if agent := os.environ.get("SSH_AUTH_SOCK"):
        lines.append(f"  IdentityAgent {_named(Path(agent))}")
    return "\n".join(lines) + "\n"


def _named(path: Path) -> str:
    """A path as ssh_config(5) takes it: in quotes, and with its own tokens doubled."""
    return f'"{path}"'.replace("%", "%%")


def virtual_environment(home: Path, *sources: Path) -> Path:
    """The Python of a new virtual environment that sees `sources`, and botocore from the emulator's environment."""
    subprocess.run([str(PYTHON), "-m", "venv", "--without-pip", str(home)], check=True)
    (own,) = home.glob("lib/python3*/site-packages")
    (emulators,) = PYTHON.parent.parent.glob("lib/python3*/site-packages")
    (own / "seen.pth").write_text("\n".join(map(str, (*sources, emulators))) + "\n")
    return home / "bin/python"


class EnvironmentFile:
    """The file that a shell reads in, such as .build/local.sh: empty until there is something to read, and 0600.

    A concurrent run keeps its own; the next free name is taken then (.build/local-2.sh).
    """

    def __init__(self, wanted: Path) -> None:
        wanted.parent.mkdir(parents=True, exist_ok=True)
        for number in count(1):
            self.path = wanted if number == 1 else wanted.with_stem(f"{wanted.stem}-{number}")
            if self._take():
                return

    def _take(self) -> bool:
        """Hold the file as long as the run lives. Nobody holds one that was left behind by a run that was killed."""
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._file)
            return False
        if not self.path.exists() or self.path.stat().st_ino != os.fstat(self._file).st_ino:
            os.close(self._file)  # its run has ended since, and removed it
            return self._take()
        os.fchmod(self._file, 0o600)
        os.ftruncate(self._file, 0)
        return True

    def write(self, text: str) -> None:
        """Fill the file, in one step for its readers."""
        os.pwrite(self._file, text.encode(), 0)

    @property
    def command(self) -> str:
        """The line that reads it in, typed in this folder or anywhere."""
        here = Path.cwd()
        near = self.path.relative_to(here) if self.path.is_relative_to(here) else self.path
        return f". {shlex.quote(str(near))}"


def _real(name: str) -> str:
    return shutil.which(name) or name
