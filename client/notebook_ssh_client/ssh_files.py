"""OpenSSH's files on this machine: the section in the person's configuration, its backup, and the hosts file."""

from __future__ import annotations

import glob
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from notebook_ssh_client import files, ssh_config, stacks
from notebook_ssh_client.failures import Failure
from notebook_ssh_client.ssh_config import Commands

BACKUP_SUFFIX = ".before-notebook-ssh"

ASKS_FOR_KEYS = (8, 5)
"""The OpenSSH that brought KnownHostsCommand (its release notes, 3 March 2021)."""

INCLUDES = (7, 3)
"""The OpenSSH that brought Include (its release notes, 1 August 2016)."""

INCLUDE_DEPTH = 16
"""How deep ssh follows Include (readconf.c, READCONF_MAX_DEPTH)."""


def default_config() -> str:
    """The configuration that ssh reads when nobody names another."""
    return os.path.join(files.ssh_folder(), "config")


def config_in_use(home: str) -> str:
    """The configuration that `setup` changed last, or else the default one."""
    try:
        return stacks.load(home).ssh_config
    except Failure:
        return default_config()


def install(home: str, config: str) -> bool:
    """Put our section on top of `config`; True when that changed it. The first change leaves a copy beside it."""
    oldest = min(ssh_versions(), default=(0, 0))
    if oldest < INCLUDES:
        found = f"OpenSSH {oldest[0]}.{oldest[1]}" if oldest != (0, 0) else "no OpenSSH"
        raise Failure(
            f"{found} is installed; notebook-ssh needs 7.3 or newer (on Windows: Settings, Optional features)"
        )
    return _rewrite(config, lambda text: ssh_config.splice(text, commands(home).hosts))


def uninstall(home: str, config: str) -> bool:
    """Take our section out of `config` and our folder away; True when there was something to take."""
    changed = _rewrite(config, ssh_config.strip)
    existed = os.path.isdir(home)
    if existed:
        for name in ("stacks.json", "names.json", "hosts", "known_hosts", "known_hosts.lock"):
            _unlink(os.path.join(home, name))
        shutil.rmtree(os.path.join(home, "remembered"), ignore_errors=True)
        _remove_if_empty(home)
    return changed or existed


def write_hosts(home: str, config: str, names: Mapping[str, Sequence[str]], labels: Sequence[str]) -> None:
    """Write the hosts file for these notebooks, less those whose name means another host to this person already.

    Whoever names a notebook must not be able to call it `localhost`, or like a server that colleagues use.
    """
    speaks, others = own_patterns(config, home), _other_hosts()
    known = ssh_config.KnownHosts(_text(os.path.join(files.ssh_folder(), "known_hosts")))

    def is_free(name: str) -> bool:
        return not ssh_config.spoken_of(name, speaks) and name.lower() not in others and name not in known

    ours = {label: [name for name in listed if is_free(name)] for label, listed in names.items()}
    text = ssh_config.hosts_file(commands(home), ours, labels)
    path = os.path.join(home, "hosts")
    if files.read(path) != text:
        files.write(path, text)


def _other_hosts() -> set[str]:
    """The names of this machine, and of those in its hosts file, in lower case."""
    here = socket.gethostname().lower()
    windows = os.path.join(os.environ.get("SYSTEMROOT", r"C:\Windows"), r"System32\drivers\etc\hosts")
    listed = ssh_config.hosts_of_this_machine(_text(windows if os.name == "nt" else "/etc/hosts"))
    return {"localhost", here, here.partition(".")[0], *listed}


def _text(path: str) -> str:
    """The file's text, or "" where there is none that can be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def own_patterns(config: str, home: str) -> list[list[str]]:
    """The patterns of every `Host` line in `config` and in what it includes, without our own hosts file."""
    seen = {os.path.realpath(os.path.join(home, "hosts"))}

    def patterns(path: str, depth: int) -> list[list[str]]:
        real = os.path.realpath(path)
        if real in seen or depth > INCLUDE_DEPTH or not os.path.isfile(real):
            return []
        seen.add(real)
        with open(real, encoding="utf-8", errors="replace") as file:
            text = file.read()
        found = ssh_config.host_patterns(text)
        for included in ssh_config.includes(text):
            whole = os.path.join(files.ssh_folder(), os.path.expanduser(included))
            for match in sorted(glob.glob(whole)):
                found += patterns(match, depth + 1)
        return found

    return patterns(config, 0)


def commands(home: str) -> Commands:
    """How ssh on this machine calls this client with the folder `home`."""
    ordinary = os.path.realpath(home) == os.path.realpath(files.default_home())
    folder = "~/.ssh/notebook-ssh" if ordinary else os.path.abspath(home)
    return Commands(
        python=sys.executable,
        home=None if ordinary else os.path.abspath(home),
        # Windows: OpenSSH's way of starting such a command was not ported for its sister options, and whether this
        # one works is UNCONFIRMED; the file alone is right everywhere.
        ask_for_keys=os.name != "nt" and min(ssh_versions(), default=(0, 0)) >= ASKS_FOR_KEYS,
        hosts=f"{folder}/hosts",
        known_hosts=f"{folder}/known_hosts",
    )


def ssh_versions() -> list[tuple[int, int]]:
    """The versions of every `ssh` that a program here may start: they all read the same configuration."""
    name = "ssh.exe" if os.name == "nt" else "ssh"
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    paths = {os.path.realpath(os.path.join(folder, name)) for folder in folders if folder}
    return [version for path in sorted(paths) if os.path.isfile(path) and (version := _version(path))]


def version_in(text: str) -> tuple[int, int] | None:
    """The version in what `ssh -V` prints, for example `OpenSSH_9.2p1 …` or `OpenSSH_for_Windows_8.1p1, …`."""
    found = re.search(r"OpenSSH_(?:for_Windows_)?(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else None


def _version(path: str) -> tuple[int, int] | None:
    try:
        done = subprocess.run([path, "-V"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return version_in(done.stderr + done.stdout)


def _rewrite(config: str, change: Callable[[bytes], bytes]) -> bool:
    """Replace what a configuration says, through a symbolic link if it is one, with the permissions it had.

    A text without our section is copied beside it once, before the first change.
    """
    real, backup = os.path.realpath(config), config + BACKUP_SUFFIX
    existed = os.path.lexists(real)
    before = _content(real) if existed else b""
    after = change(before)
    if after == before:
        return False
    try:
        os.makedirs(os.path.dirname(real), mode=0o700, exist_ok=True)
        if existed and not os.path.exists(backup) and ssh_config.strip(before) == before:
            shutil.copy2(real, backup)
        if not after and not os.path.exists(backup):
            os.unlink(real)  # we made it: without a copy, nothing was there before
        else:
            files.replace(real, after, mode=os.stat(real).st_mode & 0o7777 if existed else 0o600)
    except OSError as error:
        raise Failure(f"{real} cannot be changed ({error.strerror}); {_by_hand(after)}") from error
    return True


def _by_hand(wanted: bytes) -> str:
    lines = wanted.decode("utf-8", "replace").splitlines()
    if len(lines) > 1 and lines[0].endswith(ssh_config.BEGIN):
        return f"put this line at its top yourself: {lines[1]}"
    return "take the lines between the notebook-ssh markers out yourself"


def _content(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise Failure(f"{path} cannot be read ({error.strerror}); ssh cannot read it either") from error


def _unlink(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)


def _remove_if_empty(folder: str) -> None:
    with suppress(OSError):  # something of somebody else's is in it
        os.rmdir(folder)
