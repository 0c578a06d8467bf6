"""What a second terminal reads in: a file with variables, and a folder of programs that stands first in its PATH.

The file is for any POSIX shell, and so are the programs: small executables instead of functions of one shell.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path

from emulator.process import PROJECT

FORGOTTEN = ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN")
"""Variables that would make AWS's tools ask as another identity than the one given here."""

CURL = """\
# Addresses of API Gateway lead to this machine, as DNS would.
for word do
    shift
    case $word in
    https://*.execute-api.*/*)
        word=${word#https://}
        word={endpoint}/_aws/execute-api/${word%%.*}/${word#*/}
        ;;
    esac
    set -- "$@" "$word"
done
exec {curl} "$@"
"""


def write_programs(folder: Path, endpoint: str, *, ssh_config: Path) -> None:
    """Fill `folder`, which is made, with what differs for a terminal when AWS is on this machine, at `endpoint`.

    ssh_config: the file that ssh, scp and sftp read in place of ~/.ssh/config.
    """
    folder.mkdir()
    command_lines = PROJECT / ".venv/sam/bin"
    # By their places: with their folder in PATH, its python3 would be everybody's.
    _write(folder / "sam", f'exec {_quoted(command_lines / "sam")} "$@"\n')
    # Version 1 of AWS's command line asks the real SQS, whatever AWS_ENDPOINT_URL says; not so with the option.
    aws = f"{_quoted(command_lines / 'python')} -I -m awscli --endpoint-url {_quoted(endpoint)}"
    _write(folder / "aws", f'exec {aws} "$@"\n')
    _write(folder / "curl", CURL.replace("{endpoint}", _quoted(endpoint)).replace("{curl}", _real("curl")))
    for name in ("ssh", "scp", "sftp"):
        _write(folder / name, f'exec {_real(name)} -F {_quoted(ssh_config)} "$@"\n')


def environment(variables: Mapping[str, str], programs: Path) -> str:
    """The text of the file to read in."""
    lines = [f"unset {' '.join(FORGOTTEN)}"]
    lines += [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    lines.append(f'export PATH={_quoted(programs)}:"$PATH"')
    return "\n".join(lines) + "\n"


def write_environment(file: Path, text: str) -> None:
    """Write `file` so that only this user can read it, and so that a reader sees all of it or nothing."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.unlink(missing_ok=True)
    file.touch(mode=0o600)
    file.write_text(text)


def _write(program: Path, text: str) -> None:
    program.write_text(f"#!/bin/sh\n{text}")
    program.chmod(0o755)


def _real(name: str) -> str:
    return _quoted(shutil.which(name) or name)


def _quoted(path: Path | str) -> str:
    return shlex.quote(str(path))
