"""`make fresh`: what a stranger's first commands do on a Debian that has nothing but python3, make and git.

    python3 packaging/fresh.py [--suite trixie] [--remake] [demo] [user] [test]

It makes a minimal root with debootstrap, from the mirror and the keyring that this machine's apt has, and keeps it,
packed, for the next time. Each run unpacks a copy, clones HEAD into it, enters it in namespaces of its own (mounts,
processes, IPC, host name; the network is the machine's, since the package registries must be reached), and runs there

    demo   make demo, as root
    user   make demo, as an ordinary user, for whom `demo` has installed the packages
    test   make test, as root, where a skipped test is a failed one

Of this machine the root gets what the way to the registries needs, and nothing else: name resolution, apt's sources
and settings of its connections, proxies, pip's indexes, and the certificate authorities. However this program ends,
nothing stays mounted or running, and the copy is removed. Logs: .build/fresh/SUITE. Exit status 0 when all parts are
well.
"""

from __future__ import annotations

import argparse
import configparser
import contextlib
import fcntl
import hashlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

PROJECT = Path(__file__).resolve().parent.parent
PACKAGES = "python3", "make", "git", "ca-certificates"
"""What README.md says that a machine needs, and what every machine with a proxy of its own has."""

USER = "ordinary"
KEPT_FOR = 30
"""Days after which the root is made from the mirror again."""

SPACE = 6_000
"""Megabytes that a run may take on the disk: a root, two clones, and the environments of `make test`."""

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class RefusedError(Exception):
    """It cannot be done here; one sentence says why, and what to do."""


# ---- where this machine gets its packages ------------------------------------------------------


@dataclass(frozen=True)
class Source:
    """A place that apt gets packages from (sources.list(5)). keyring: the file named by Signed-By, if it is one."""

    uri: str
    suite: str
    components: tuple[str, ...]
    keyring: str = ""

    def line(self) -> str:
        """The same in apt's format of one line."""
        options = f"[signed-by={self.keyring}] " if self.keyring else ""
        return f"deb {options}{self.uri} {self.suite} {' '.join(self.components)}"


def read_sources(name: str, text: str) -> list[Source]:
    """The places in a file of apt's, in its format of stanzas (`*.sources`) or of one line each."""
    return _read_stanzas(text) if name.endswith(".sources") else _read_lines(text)


def _read_lines(text: str) -> list[Source]:
    found = []
    for line in text.splitlines():
        read = re.match(r"deb\s+(?:\[(?P<options>[^]]*)\]\s*)?(?P<rest>[^[#]+)", line.strip())
        words = read["rest"].split() if read else []
        if read and len(words) > 2:
            options = dict(word.partition("=")[::2] for word in (read["options"] or "").split())
            found.append(Source(words[0], words[1], tuple(words[2:]), _file(options.get("signed-by", ""))))
    return found


def _read_stanzas(text: str) -> list[Source]:
    found = []
    for stanza in re.split(r"\n\s*\n", text):
        fields: dict[str, str] = {}
        name = ""
        for line in stanza.splitlines():
            if line.startswith("#"):
                continue
            if line[:1].isspace():
                fields[name] = fields.get(name, "") + " " + line.strip()
            else:
                name, _, value = line.partition(":")
                name = name.strip().lower()
                fields[name] = value.strip()
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() in ("no", "false", "0"):
            continue
        components, keyring = tuple(fields.get("components", "").split()), _file(fields.get("signed-by", ""))
        found += [
            Source(uri, suite, components, keyring)
            for uri in fields.get("uris", "").split()
            for suite in fields.get("suites", "").split()
            if components
        ]
    return found


def _file(signed_by: str) -> str:
    """A Signed-By may also hold fingerprints, or the key itself."""
    words = signed_by.split()
    return words[0] if len(words) == 1 and words[0].startswith("/") else ""


ALIASES = {"stable", "oldstable", "oldoldstable", "testing", "unstable"}


def sources_for(wanted: str, own: str, distribution: str, sources: Iterable[Source]) -> list[Source]:
    """The distribution's archive for the suite `wanted`, first, then its updates and security, where `own` has them.

    own, distribution: VERSION_CODENAME and ID of /etc/os-release. Empty when the machine's apt knows no such archive.
    """
    found: dict[str, Source] = {}
    for source in sorted(sources, key=lambda each: distribution not in f"{each.keyring} {each.uri}"):
        suite, _, part = source.suite.partition("-")
        if "main" in source.components and (suite == own or suite in ALIASES) and part in ("", "updates", "security"):
            found.setdefault(part, replace(source, suite=f"{wanted}-{part}" if part else wanted))
    return [found[part] for part in ("", "updates", "security") if part in found] if "" in found else []


# ---- what of this machine is handed through ----------------------------------------------------

PROXIES = "http_proxy", "https_proxy", "ftp_proxy", "no_proxy"
CERTIFICATES = "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"
"""Variables that name the machine's certificate authorities, in the order in which pip asks for them."""


def proxies(environment: Mapping[str, str], apt: str) -> dict[str, str]:
    """The variables that name proxies, in both spellings; for want of them, what apt's configuration names."""
    found = {}
    for name in PROXIES:
        value = environment.get(name) or environment.get(name.upper())
        if not value:
            setting = rf'^Acquire::{name.removesuffix("_proxy")}::Proxy "([^"]+)";'
            read = re.search(setting, apt, re.MULTILINE | re.IGNORECASE)
            value = read[1] if read else None
        if value and value.upper() != "DIRECT":
            found[name] = value
    return found


def apt_settings(dump: str) -> str:
    """Of `apt-config dump`, what says how apt connects and what it believes, and nothing of what it does then."""
    wanted = re.compile(r"Acquire::(https?(::|\s)|Check-|Max-|Retries|Force)", re.IGNORECASE)
    return "".join(f"{line}\n" for line in dump.splitlines() if wanted.match(line) and not line.endswith(' "";'))


PIP = "index-url", "extra-index-url", "cert", "client-cert", "proxy", "trusted-host", "timeout", "retries"


def pip_settings(environment: Mapping[str, str], files: Sequence[str]) -> dict[str, str]:
    """What pip is told here of its indexes and the way to them: by its `files`, the later ones first, and variables.

    Indexes in folders stay out: they are the machine's own.
    """
    found = {"cert": next(filter(None, map(environment.get, CERTIFICATES)), "")}
    for text in files:
        parser = configparser.RawConfigParser(strict=False)
        with contextlib.suppress(configparser.Error):
            parser.read_string(text)
        for section in ("global", "install"):
            if parser.has_section(section):
                found |= {key: value for key, value in parser.items(section) if key in PIP}
    for key in PIP:
        if value := environment.get("PIP_" + key.upper().replace("-", "_")):
            found[key] = value
    for key in ("index-url", "extra-index-url"):
        if key in found:
            found[key] = " ".join(word for word in found[key].split() if re.match("https?:", word))
    return {key: value for key, value in found.items() if value}


def _pip_files() -> list[str]:
    """pip's configuration on Linux, in the order in which it reads it (pip's user guide, Configuration)."""
    home = Path(os.environ.get("HOME") or "/root")
    places = [
        Path("/etc/xdg/pip/pip.conf"),
        Path("/etc/pip.conf"),
        home / ".pip/pip.conf",
        Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "pip/pip.conf",
        Path(os.environ.get("PIP_CONFIG_FILE") or os.devnull),
    ]
    return [place.read_text(errors="replace") for place in places if place.is_file()]


# ---- namespaces --------------------------------------------------------------------------------

KEEP = """
echo "$me"
exec env -i PATH="$PATH" bash -c 'exec >/dev/null 2>&1; read -r _'
"""
"""The first process of the namespaces, on whose end the kernel ends all others. It ends when its input closes, which
happens when this program is gone, however it went; until then bash takes leave of orphans that end, as init does."""

FOR_DEBOOTSTRAP = (
    """
set -eu
read -r me _ </proc/self/stat  # our id outside, while /proc is still the machine's
mount -t proc proc /proc
"""
    + KEEP
)

FRESH = (
    """
set -eu
read -r me _ </proc/self/stat
mount --bind "$1" "$1" # so that / will be a mount point, as everywhere
cd "$1"
mount -t proc -o nosuid,nodev,noexec proc proc
mount -t sysfs -o ro,nosuid,nodev,noexec sysfs sys
mount -t tmpfs -o mode=755,nosuid dev dev
for device in null zero full random urandom tty; do
    : >dev/$device
    mount --bind /dev/$device dev/$device
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts dev/pts
mount -t tmpfs -o mode=1777,nosuid,nodev shm dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ln -s fd/0 dev/stdin
ln -s fd/1 dev/stdout
ln -s fd/2 dev/stderr
mount -t tmpfs -o mode=755,nosuid,nodev run run
echo fresh >/proc/sys/kernel/hostname
pivot_root . mnt
cd /
umount -l /mnt
"""
    + KEEP
)


class Space:
    """Namespaces, set up by a shell script that ends with KEEP. They end with `close`, or with this process."""

    def __init__(self, script: str, *words: str) -> None:
        command = ["unshare", "--mount", "--pid", "--ipc", "--uts", "--fork", "sh", "-c", script, "sh", *words]
        self._first = subprocess.Popen(
            command,
            env={"PATH": PATH},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._id = self._first.stdout.readline().strip() if self._first.stdout else ""
        if not self._id:
            said = self._first.communicate()[1].strip().splitlines()[-1:] or ["nothing was said"]
            raise RefusedError(f"namespaces cannot be made here: {said[0]} (a container needs --privileged)")

    def run(self, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> int:
        """Run a command inside, with nothing but `environment`, and add what it says to `log`; its exit status."""
        words = ["nsenter", "--target", self._id, "--mount", "--pid", "--ipc", "--uts", "--", *command]
        with log.open("ab") as file:
            return subprocess.run(
                words,
                env={"PATH": PATH, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,  # so that Ctrl-C is ours alone
                check=False,
            ).returncode

    def close(self) -> None:
        """End everything inside; return when it has ended."""
        self._first.communicate("")

    def __enter__(self) -> Space:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# ---- folders -----------------------------------------------------------------------------------

REMOVE = """
trap '' INT TERM HUP
cat >/dev/null
tries=0
until rm -rf --one-file-system -- "$1" 2>/dev/null || [ $tries -ge 50 ]; do tries=$((tries + 1)); sleep 0.1; done
"""
"""Several tries, since after a sudden end the kernel may still be ending what writes there."""


@contextlib.contextmanager
def _locked(place: Path) -> Iterator[None]:
    """Hold the lock of a file or folder, after whoever has it."""
    descriptor = os.open(place, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _only_one(place: Path) -> int | None:
    """Lock a file or folder and return its descriptor, or None when another process has it."""
    descriptor = os.open(place, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


@contextlib.contextmanager
def _passing_folder(cache: Path) -> Iterator[Path]:
    """A new folder in `cache` that is gone afterwards, also after `kill -9`, or at the latest when another is made."""
    with _locked(cache):
        for left in cache.glob("run-*"):  # by a machine that lost its power
            with contextlib.suppress(OSError):
                descriptor = _only_one(left)
                if descriptor is not None:
                    shutil.rmtree(left, ignore_errors=True)
                    os.close(descriptor)
        place = Path(tempfile.mkdtemp(prefix="run-", dir=cache))
        lock = _only_one(place)
    remover = subprocess.Popen(
        ["sh", "-c", REMOVE, "sh", str(place)],
        stdin=subprocess.PIPE,
        pass_fds=[lock] if lock else [],
        start_new_session=True,
    )
    try:
        yield place
    finally:
        if lock:
            os.close(lock)
        # Ctrl-C does not wait for it: it goes on by itself, as after `kill -9`.
        if not isinstance(sys.exc_info()[1], KeyboardInterrupt):
            remover.communicate(b"")


# ---- this machine ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Machine:
    """What this machine has. scripts: for each suite that debootstrap knows, its distribution's script."""

    euid: int
    apt: bool
    own: str
    distribution: str
    sources: Sequence[Source]
    scripts: Mapping[str, str]
    free: int
    """Megabytes, where the copy will be."""


def refusal(machine: Machine, suite: str) -> str | None:
    """Why a root of `suite` cannot be made and entered on `machine`; None when it can."""
    if not machine.apt:
        return "it needs apt, so a Debian or an Ubuntu to run on"
    if machine.euid != 0:
        return "it needs root, to make a root file system and namespaces: sudo make fresh"
    if suite not in machine.scripts:
        return f"debootstrap knows no suite {suite!r}; this machine's own is SUITE={machine.own}"
    mirror = sources_for(suite, machine.own, machine.distribution, machine.sources)
    if not mirror:
        return f"apt has no source with the component main for {machine.own}, this machine's suite; add one"
    if machine.scripts[suite] != machine.scripts.get(machine.own):
        return f"{suite} is none of {machine.distribution.capitalize()}'s suites, of which apt here has the packages"
    if machine.free < SPACE:
        return (
            f"it needs {SPACE:,} MB on the disk, and {machine.free:,} MB are free; XDG_CACHE_HOME names another place"
        )
    return None


def _this_machine(cache: Path) -> Machine:
    file = Path("/etc/os-release")
    lines = file.read_text().replace('"', "").splitlines() if file.exists() else []
    release = dict(line.partition("=")[::2] for line in lines)
    apt = shutil.which("apt-get", path=PATH) is not None
    sources: list[Source] = []
    if apt:
        named = _output("apt-config", "shell", "ONE", "Dir::Etc::sourcelist/f", "MORE", "Dir::Etc::sourceparts/d")
        places = {name: Path(value) for name, value in re.findall(r"^(ONE|MORE)='(.*)'$", named, re.MULTILINE)}
        more = places["MORE"]
        for file in (places["ONE"], *sorted([*more.glob("*.list"), *more.glob("*.sources")])):
            if file.is_file():
                sources += read_sources(file.name, file.read_text())
    scripts = Path("/usr/share/debootstrap/scripts")
    return Machine(
        os.geteuid(),
        apt,
        release.get("VERSION_CODENAME", ""),
        release.get("ID", ""),
        [replace(source, uri=first_mirror(source.uri)) for source in sources],
        {each.name: each.resolve().name for each in scripts.iterdir()} if scripts.is_dir() else {},
        shutil.disk_usage(_existing(cache)).free // 1_000_000,
    )


def first_mirror(uri: str) -> str:
    """apt can be given a list of mirrors in a file (apt-transport-mirror(1)); debootstrap takes one."""
    if not uri.startswith("mirror+file:"):
        return uri
    lines = Path(uri.removeprefix("mirror+file:")).read_text().split("\n")
    return next((line.split()[0] for line in lines if line.strip() and not line.startswith("#")), uri)


def _existing(place: Path) -> Path:
    return place if place.exists() else _existing(place.parent)


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, env={"PATH": PATH, "LC_ALL": "C"}).stdout


# ---- the root ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class LifecycleConfigRecord:
    """The packed root of a suite, in the folder `cache`."""

    cache: Path
    suite: str
    sources: Sequence[Source]
    way: Mapping[str, str]
    """Proxies, as variables."""

    @property
    def file(self) -> Path:
        """Named by what it was made of, so that another mirror or another package makes another one."""
        recipe = repr((self.sources[0], PACKAGES))
        return self.cache / f"{self.suite}-{hashlib.sha256(recipe.encode()).hexdigest()[:8]}.tar.gz"

    def age(self) -> float | None:
        """In days; None when there is none."""
        return (time.time() - self.file.stat().st_mtime) / 86_400 if self.file.exists() else None

    def make(self, log: Path) -> None:
        """Make it. Under its own name it is whole, or not there."""
        mirror = self.sources[0]
        with _passing_folder(self.cache) as folder:
            root, packed = folder / "root", folder / "root.tar.gz"
            command = [
                "debootstrap",
                "--variant=minbase",
                f"--include={','.join(PACKAGES)}",
                f"--components={','.join(mirror.components)}",
                *([f"--keyring={mirror.keyring}"] if mirror.keyring.endswith(".gpg") else []),
                self.suite,
                str(root),
                mirror.uri,
            ]
            # debootstrap takes its mounts for a machine's own, and leaves them behind when it is interrupted.
            with Space(FOR_DEBOOTSTRAP) as space:
                status = space.run(command, log, {"LC_ALL": "C", **self.way})
            if status:
                raise RefusedError(f"debootstrap could not make {self.suite}: {_last_line(log)}; see {log}")
            _pack(root, packed)
            for old in self.cache.glob(f"{self.suite}-*.tar.gz"):
                old.unlink()
            packed.replace(self.file)

    def unpack(self, root: Path) -> bool:
        """Lay it out in `root`; False when it is damaged, as gzip's checksum tells."""
        root.mkdir(mode=0o755)
        words = ["tar", "--extract", "--gzip", "--file", str(self.file), "--directory", str(root)]
        done = subprocess.run([*words, *TAR], check=False, capture_output=True)
        return done.returncode == 0


TAR = "--numeric-owner", "--preserve-permissions", "--xattrs", "--xattrs-include=*"
LEFT_OUT = "./dev/*", "./proc/*", "./sys/*", "./etc/resolv.conf", "./etc/hostname", "./var/lib/apt/lists/*"
"""debootstrap copies two of them from the machine."""


def _pack(root: Path, packed: Path) -> None:
    words = ["tar", "--create", "--use-compress-program=gzip -1", "--file", str(packed), "--directory", str(root)]
    left_out = [f"--exclude={pattern}" for pattern in LEFT_OUT]
    subprocess.run([*words, *TAR, "--one-file-system", *left_out, "."], check=True)


def hand_through(root: Path, sources: Sequence[Source], apt: str, pip: Mapping[str, str]) -> None:
    """Write into `root` what the way to the registries needs, but the certificate authorities."""
    for names in ("/etc/resolv.conf", "/etc/hosts"):
        if os.path.exists(names):
            shutil.copyfile(names, f"{root}{names}")
    (root / "etc/hostname").write_text("fresh\n")
    (root / "etc/apt/sources.list").write_text("".join(f"{source.line()}\n" for source in sources))
    (root / "etc/apt/apt.conf.d/90connections").write_text(apt)
    (root / "etc/pip.conf").write_text("[global]\n" + "".join(f"{key} = {value}\n" for key, value in pip.items()))
    for name in (*(source.keyring for source in sources), pip.get("cert"), pip.get("client-cert")):
        if name and os.path.isfile(name):
            os.makedirs(os.path.dirname(f"{root}{name}"), exist_ok=True)
            shutil.copyfile(name, f"{root}{name}")


# ---- the parts ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """A command in a clone. what: as the outcome's line names it."""

    what: str
    user: str
    command: str

    def clone(self, root: Path) -> Path:
        """Where its clone is, in the home of its user."""
        return root / ("root" if self.user == "root" else f"home/{self.user}") / "notebook-ssh"


PARTS = {
    "demo": Part("make demo, as root", "root", "make demo"),
    "user": Part("make demo, as an ordinary user", USER, "make demo"),
    "test": Part("make test, as root", "root", "CI=true make test"),
}


def chosen(names: Sequence[str]) -> list[str]:
    """The parts to run for the names given, in their order; `user` needs the packages that `demo` installs."""
    wanted = set(names or PARTS) | ({"demo"} if "user" in names else set())
    return [name for name in PARTS if name in wanted]


def _clone(root: Path, part: Part, space: Space, log: Path) -> None:
    """HEAD, for the part's user; without the address that it came from, which is not there inside."""
    clone = part.clone(root)
    if clone.exists():
        return
    git = ["git", "-c", "advice.detachedHead=false"]
    _quietly(log, *git, "clone", "--quiet", "--no-local", str(PROJECT), str(clone))
    _quietly(log, *git, "-C", str(clone), "checkout", "--quiet", "--detach", _head())
    _quietly(log, *git, "-C", str(clone), "remote", "remove", "origin")
    space.run(["chown", "-R", f"{part.user}:", f"/{clone.relative_to(root)}"], log)


def _quietly(log: Path, *command: str) -> None:
    with log.open("ab") as file:
        if subprocess.run(command, stdout=file, stderr=file, check=False).returncode:
            raise RefusedError(f"{shlex.join(command)} failed: {_last_line(log)}")


def _git(*words: str) -> str:
    done = subprocess.run(["git", "-C", str(PROJECT), *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RefusedError(f"it needs a clone of the project, and git says: {done.stderr.strip().splitlines()[-1]}")
    return done.stdout


def _head() -> str:
    return _git("rev-parse", "HEAD").strip()


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    told = [line.strip() for line in lines if line.strip() and not line.startswith("make: ***")]
    return told[-1] if told else "it said nothing"


def _say(text: str, end: str = "\n") -> None:
    print(text, end=end, flush=True)


def run(suite: str, names: Sequence[str], *, remake: bool, machine: Machine, cache: Path) -> bool:
    """Make the root if need be, and run the parts in it; whether all are well."""
    cache.mkdir(parents=True, exist_ok=True)
    logs = _log_folder(suite)
    dump = _output("apt-config", "dump")
    sources = sources_for(suite, machine.own, machine.distribution, machine.sources)
    way = proxies(os.environ, dump)
    kept = LifecycleConfigRecord(cache, suite, sources, way)
    unsaved = ", without the changes that are not committed" if _git("status", "--porcelain") else ""
    _say(f"fresh: {machine.distribution.capitalize()} {suite}, the project at {_head()[:10]}{unsaved}")
    with _passing_folder(cache) as folder:
        root = folder / "root"
        (cache / ".making").touch()
        with _locked(cache / ".making"):
            _have_root(kept, root, logs / "root.log", remake)
        with Space(FRESH, str(root)) as space:
            _prepare(root, space, logs / "root.log")
            # Last, since pip's authorities may be the file that update-ca-certificates writes.
            hand_through(root, sources, apt_settings(dump), pip_settings(os.environ, _pip_files()))
            well = [_outcome(PARTS[name], root, space, logs / f"{name}.log", way) for name in names]
            return all(well)


def _have_root(kept: LifecycleConfigRecord, root: Path, log: Path, remake: bool) -> None:
    age = kept.age()
    if not remake and age is not None and age < KEPT_FOR and kept.unpack(root):
        _say(f"  the root of {time.strftime('%Y-%m-%d', time.localtime(kept.file.stat().st_mtime))}, in {kept.file}")
        return
    shutil.rmtree(root, ignore_errors=True)
    _say("  the root is made ... ", end="")
    began = time.monotonic()
    kept.make(log)
    if not kept.unpack(root):
        raise RefusedError(f"{kept.file} cannot be unpacked")
    _say(f"{time.monotonic() - began:.0f} s, kept in {kept.file}")


def _prepare(root: Path, space: Space, log: Path) -> None:
    """Let the root believe the certificate authorities of the machine, and know an ordinary user."""
    authorities = Path("/usr/local/share/ca-certificates")
    if authorities.is_dir():
        shutil.copytree(authorities, root / authorities.relative_to("/"), dirs_exist_ok=True)
    for command in (["update-ca-certificates"], ["useradd", "--create-home", "--shell", "/bin/bash", USER]):
        if space.run(command, log):
            raise RefusedError(f"{shlex.join(command)} failed in the root: {_last_line(log)}")


def _outcome(part: Part, root: Path, space: Space, log: Path, way: Mapping[str, str]) -> bool:
    """Run a part and tell its outcome in a line, with the last one that it wrote."""
    _say(f"  {part.what:<32} ", end="")
    log.unlink(missing_ok=True)
    shutil.rmtree(log.with_suffix(".logs"), ignore_errors=True)
    _clone(root, part, space, log)
    began = time.monotonic()
    # A login, so that the environment is what such a user has there.
    handed = [f"--whitelist-environment={','.join(way)}"] if way else []
    words = ["su", "--login", *handed, part.user, "--command", f"cd notebook-ssh && {part.command}"]
    status = space.run(words, log, {"TERM": os.environ.get("TERM", "linux"), **way})
    seconds = f"{time.monotonic() - began:4.0f} s"
    if status:
        _say(f"FAILED {seconds}  exit status {status}: {_last_line(log)}; see {log}")
        own = part.clone(root) / ".build/logs"
        if own.is_dir():
            shutil.copytree(own, log.with_suffix(".logs"), symlinks=True, dirs_exist_ok=True)
    else:
        _say(f"ok     {seconds}  {_last_line(log)}")
    return status == 0


def _log_folder(suite: str) -> Path:
    """.build/fresh/SUITE; it belongs to the owner of the project, so that `sudo make fresh` leaves it usable."""
    owner = PROJECT.stat()
    place = PROJECT
    for name in (".build", "fresh", suite):
        place = place / name
        place.mkdir(exist_ok=True)
        os.chown(place, owner.st_uid, owner.st_gid)
    (place / "root.log").unlink(missing_ok=True)
    return place


def _be_interrupted() -> None:
    def interrupted(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupted)


def main(words: Sequence[str]) -> int:
    """The command line described at the top of this file."""
    parser = argparse.ArgumentParser(description="the first commands, on a Debian that has nothing")
    parser.add_argument("--suite", default="", help="the release, such as trixie (default: this machine's)")
    parser.add_argument("--remake", action="store_true", help="make the root again, whatever its age")
    parser.add_argument("parts", nargs="*", metavar="demo|user|test", help="what to run (default: all of them)")
    arguments = parser.parse_args(words)
    unknown = [name for name in arguments.parts if name not in PARTS]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "notebook-ssh/fresh"
    _be_interrupted()
    try:
        if unknown:
            raise RefusedError(f"there is no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
        if shutil.which("apt-get", path=PATH) and os.geteuid() == 0:
            tools = subprocess.run([PROJECT / "packaging/tools.sh", "debootstrap", "mount", "git"], check=False)
            if tools.returncode:
                return 1  # it has said why
        machine = _this_machine(cache)
        suite = arguments.suite or machine.own
        if reason := refusal(machine, suite):
            raise RefusedError(reason)
        well = run(suite, chosen(arguments.parts), remake=arguments.remake, machine=machine, cache=cache)
    except RefusedError as problem:
        print(f"fresh: {problem}", file=sys.stderr)
        return 1
    except OSError as problem:
        print(f"fresh: {problem.strerror}: {problem.filename}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "\nfresh: interrupted; nothing runs or is mounted any more, and the copy is being removed", file=sys.stderr
        )
        return 130
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
