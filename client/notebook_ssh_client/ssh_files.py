"""Edits OpenSSH's files on this machine: the section in the user's ssh_config, its backup, and the hosts file."""

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

from notebook_ssh_client import address_cache, files, settings, ssh_config
from notebook_ssh_client.errors import CliError
from notebook_ssh_client.ssh_config import ClientCommand

BACKUP_SUFFIX = ".before-notebook-ssh"

# The OpenSSH version that introduced KnownHostsCommand (its release notes, 3 March 2021).
KNOWN_HOSTS_COMMAND_SINCE = (8, 5)

# The OpenSSH version that introduced Include (its release notes, 1 August 2016).
INCLUDE_SINCE = (7, 3)

# The depth to which ssh follows Include (readconf.c, READCONF_MAX_DEPTH).
MAX_INCLUDE_DEPTH = 16


def default_config_path() -> str:
    """Return the path of the ssh_config that ssh reads by default."""
    return os.path.join(files.ssh_dir(), "config")


def current_config_path(home: str) -> str:
    """Return the path of the ssh_config that `setup` changed last, or the default one."""
    try:
        return settings.load_settings(home).ssh_config
    except CliError:
        return default_config_path()


def install(home: str, config: str) -> bool:
    """Insert the client's section into `config`; return whether this changed it. The first change makes a backup."""
    oldest = min(ssh_versions(), default=(0, 0))
    if oldest < INCLUDE_SINCE:
        found = f"OpenSSH {oldest[0]}.{oldest[1]} is too old" if oldest != (0, 0) else "OpenSSH was not found on PATH"
        raise CliError(f"{found}; install OpenSSH 7.3 or newer (on Windows: Settings, Optional features)")
    return _edit_config(config, lambda text: ssh_config.insert_section(text, client_command(home).hosts_path))


def uninstall(home: str, config: str) -> bool:
    """Remove the client's section and its files; return whether there were any."""
    changed = _edit_config(config, ssh_config.remove_section)
    existed = os.path.isdir(home)
    if existed:
        for name in ("settings.json", "names.json", "hosts", "known_hosts", "known_hosts.lock"):
            with suppress(FileNotFoundError):
                os.unlink(os.path.join(home, name))
        address_cache.clear(home)
        with suppress(OSError):  # it has other files in it
            os.rmdir(home)
    return changed or existed


def write_hosts_file(home: str, config: str, names: Mapping[str, Sequence[str]], labels: Sequence[str]) -> None:
    """Write the hosts file for these notebooks, without those whose name already refers to another host.

    A user who names a notebook must not be able to take over `localhost` or the name of a server of other users.
    """
    host_lines, local_names = user_host_lines(config, home), _local_host_names()
    known = ssh_config.KnownHosts(_read_or_empty(os.path.join(files.ssh_dir(), "known_hosts")))

    def is_free(name: str) -> bool:
        is_configured = ssh_config.is_configured_by_user(name, host_lines)
        return not is_configured and name.lower() not in local_names and name not in known

    free = {label: [name for name in listed if is_free(name)] for label, listed in names.items()}
    text = ssh_config.hosts_file(client_command(home), free, labels)
    path = os.path.join(home, "hosts")
    if files.read_text(path) != text:
        files.write_text(path, text)


def _local_host_names() -> set[str]:
    """Return the names of this machine and of the hosts in its hosts(5) file, in lower case."""
    hostname = socket.gethostname().lower()
    windows = os.path.join(os.environ.get("SYSTEMROOT", r"C:\Windows"), r"System32\drivers\etc\hosts")
    listed = ssh_config.etc_hosts_names(_read_or_empty(windows if os.name == "nt" else "/etc/hosts"))
    return {"localhost", hostname, hostname.partition(".")[0], *listed}


def _read_or_empty(path: str) -> str:
    """Return the file's text, or "" if it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def user_host_lines(config: str, home: str) -> list[list[str]]:
    """Return the patterns of every `Host` line in `config` and its includes, without the client's hosts file."""
    visited = {os.path.realpath(os.path.join(home, "hosts"))}

    def read(path: str, depth: int) -> list[list[str]]:
        real = os.path.realpath(path)
        if real in visited or depth > MAX_INCLUDE_DEPTH or not os.path.isfile(real):
            return []
        visited.add(real)
        with open(real, encoding="utf-8", errors="replace") as file:
            text = file.read()
        host_lines = ssh_config.host_patterns(text)
        for include in ssh_config.include_paths(text):
            absolute = os.path.join(files.ssh_dir(), os.path.expanduser(include))
            for match in sorted(glob.glob(absolute)):
                host_lines += read(match, depth + 1)
        return host_lines

    return read(config, 0)


def client_command(home: str) -> ClientCommand:
    """Return how ssh on this machine runs this client with the directory `home`."""
    is_default = os.path.realpath(home) == os.path.realpath(files.default_home())
    directory = "~/.ssh/notebook-ssh" if is_default else os.path.abspath(home)
    return ClientCommand(
        python=sys.executable,
        home=None if is_default else os.path.abspath(home),
        # Windows: OpenSSH's way of running such a command was not ported for similar options, and whether this one
        # works is UNCONFIRMED; the file alone is sufficient on every system.
        has_known_hosts_command=os.name != "nt" and min(ssh_versions(), default=(0, 0)) >= KNOWN_HOSTS_COMMAND_SINCE,
        hosts_path=f"{directory}/hosts",
        known_hosts_path=f"{directory}/known_hosts",
    )


def ssh_versions() -> list[tuple[int, int]]:
    """Return the version of every `ssh` on PATH: they all read the same ssh_config."""
    name = "ssh.exe" if os.name == "nt" else "ssh"
    directories = os.environ.get("PATH", os.defpath).split(os.pathsep)
    paths = {os.path.realpath(os.path.join(directory, name)) for directory in directories if directory}
    return [version for path in sorted(paths) if os.path.isfile(path) and (version := _read_version(path))]


def parse_version(text: str) -> tuple[int, int] | None:
    """Return the version in the output of `ssh -V`: `OpenSSH_9.2p1 …` or `OpenSSH_for_Windows_8.1p1, …`."""
    match = re.search(r"OpenSSH_(?:for_Windows_)?(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else None


def _read_version(path: str) -> tuple[int, int] | None:
    try:
        result = subprocess.run([path, "-V"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return parse_version(result.stderr + result.stdout)


def _edit_config(config: str, edit: Callable[[bytes], bytes]) -> bool:
    """Apply `edit` to an ssh_config; return whether this changed it. Symbolic links and permissions are preserved.

    The first change of a file without the client's section makes a backup next to it.
    """
    real, backup = os.path.realpath(config), config + BACKUP_SUFFIX
    existed = os.path.lexists(real)
    before = _read_bytes(real) if existed else b""
    after = edit(before)
    if after == before:
        return False
    try:
        os.makedirs(os.path.dirname(real), mode=0o700, exist_ok=True)
        if existed and not os.path.exists(backup) and ssh_config.remove_section(before) == before:
            shutil.copy2(real, backup)
        if not after and not os.path.exists(backup):
            os.unlink(real)  # `setup` created it: without a backup, there was no file before
        else:
            files.write_atomically(real, after, mode=os.stat(real).st_mode & 0o7777 if existed else 0o600)
    except OSError as error:
        raise CliError(f"cannot write {real} ({error.strerror}); {_manual_edit(after)}") from error
    return True


def _manual_edit(after: bytes) -> str:
    """Return the instruction to make the edit by hand."""
    lines = after.decode("utf-8", "replace").splitlines()
    if len(lines) > 1 and lines[0].endswith(ssh_config.BEGIN_LINE):
        return f"add this line at its top: {lines[1]}"
    return "delete the lines from the first to the second notebook-ssh marker"


def _read_bytes(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise CliError(f"cannot read {path} ({error.strerror}); it must be a file that you can read") from error
