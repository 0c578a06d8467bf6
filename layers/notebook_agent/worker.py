"""What the agent does on a notebook once something is wished of it: tunnel, keys, commands, and telling people.

The stack sends this text with its answer, the agent checks it against the SHA-256 in the block and runs it
(agent.py, docs/notebook.md). Everything here runs as the owner of /home/ec2-user, so whatever a path there may
be, nothing is reached that this owner could not reach anyway; only `set_up` and `put_back` run as root, and they
touch root's own paths alone.

In this order: keys and sessions; ngrok's configuration, program and tunnel; the worker, which brings all together; the
notebook's own tags; what the worker looks after; what people read; root's part; people's commands.

Standard library only, Python 3.9 or later; agent.py lies in the same folder.
"""

import base64
import binascii
import datetime
import errno
import glob
import hashlib
import json
import os
import pwd
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import tarfile
import time
import urllib.request

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from agent import (
    HOME,
    KEPT,
    MINE,
    OPT,
    REGION,
    ROOT,
    RUN,
    VOLUME,
    Exchange,
    drop,
    load,
    log,
    read,
    start,
    write,
)

NGROK = VOLUME + ".ngrok/"
NGROK_LOG = ROOT + "/var/log/ngrok.log"
INSTRUCTIONS = VOLUME + "SSH_INSTRUCTIONS"
STATUS = MINE + "status.json"
WAKE = MINE + "wake"
PORT = int(os.environ.get("NOTEBOOK_SSH_PORT") or 22)
COMMANDS = "ssh-status", "copy-ssh-keys", "start-ssh-ngrok", "start-ngrok-ssh"
YEAR = 365 * 86400
PATIENCE = 5  # seconds for a child that should end
API_PATIENCE = 2  # seconds for ngrok's local API
# VS Code, Cursor, and of JetBrains: servers, their plugins, and what PyCharm puts there for an SSH interpreter.
EDITORS = ".vscode-server", ".cursor-server", ".cache/JetBrains", ".local/share/JetBrains", ".pycharm_helpers"


def blocked(why, place):
    """The sentence for a file that could not be read or written. place: where, when the error does not say."""
    return f"{why.filename2 or why.filename or place}: {why.strerror}; make room, or move it away"


def whole(path):
    """The text of a file of the person's, to be written again. What `read` would cut short is refused, so that none is lost."""
    text = read(path)
    if len(text) == 1 << 20:
        raise OSError(errno.EFBIG, "larger than 1 MB", path)
    return text


def anew(path):
    """An empty file at `path`, open for bytes; a link or a pipe in its place is taken away, not followed."""
    if os.path.lexists(path):
        os.unlink(path)
    return open(path, "xb")


class Trouble(Exception):
    """What stands in the way: `Trouble(code, message)`, for a person. Never holds a secret."""


# --- keys and sessions ---------------------------------------------------------------------------------------

HOST_KEYS = "ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521"
BEGIN, END = "# notebook-ssh: begin, kept by the agent", "# notebook-ssh: end"

# sshd(8), AUTHORIZED_KEYS FILE FORMAT: [options] type base64 [comment]; quotes in options may hold spaces.
# Each character can be read in one way alone, or a line of many `\"` would take for ever.
KEY = re.compile(
    r'(?:(?:[^\s"]|"(?:\\"|[^"\\]|\\(?!"))*")+[ \t]+)?((?:ssh-|ecdsa-|sk-)[\w@.-]+)[ \t]+([A-Za-z0-9+/]+=*)(?:\s.*)?'
)


def parse_keys(text):
    """({data: line}, [{"line", "reason"}]): the public keys in an authorized_keys text, the first of equals, and the rest."""
    good, bad = {}, []
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        found = KEY.fullmatch(line)
        if found and is_key(found[1], found[2]):
            good.setdefault(found[2], line)
        else:
            reason = "a damaged public key" if found else "not a public key"
            if "PRIVATE KEY" in line:
                reason = "part of a private key: remove it from this file"
            bad.append({"line": number, "reason": reason})
    return good, bad


def is_key(kind, data):
    """Whether `data` (base64) is whole and begins with its type's name, as length and text (RFC 4253 §6.6)."""
    try:
        rest, parts = base64.b64decode(data, validate=True), []
        while rest:
            (length,) = struct.unpack(">I", rest[:4])
            if len(rest) < 4 + length:
                return False
            parts.append(rest[4 : 4 + length])
            rest = rest[4 + length :]
            if "-cert-" in kind:
                break  # a certificate goes on with numbers (OpenSSH, PROTOCOL.certkeys)
        return len(data) > 60 and parts[0] == kind.encode() and (len(parts) > 1 or "-cert-" in kind)
    except (binascii.Error, struct.error):
        return False


def put_keys(central):
    """Bring our section of ~/.ssh/authorized_keys up to date; what is in it, and why the person's file was not read, or None.

    central: [{"user", "keys"}] as in docs/protocol.md; None takes the section away. Every line outside the section is the
    person's and stays.
    """
    folder = HOME + "/.ssh"
    path = os.path.realpath(folder + "/authorized_keys")
    before = whole(path)
    section = re.compile(rf"(?ms)^{BEGIN}\n((?:(?!{BEGIN}).)*?)^{END}\n")
    rest = section.sub("", before)
    if central is None:
        if rest != before:
            write(path, rest, 0o600)
        return None, None
    unread = None
    try:
        own, bad = parse_keys(read(VOLUME + "ssh/authorized_keys"))
    except OSError as why:
        # What cannot be read is not empty: the keys that stood above the first central one stay.
        inside = section.search(before)
        own, bad = parse_keys(re.split(r"(?m)^#", inside[1])[0] if inside else "")
        unread = why
    lines, count = list(own.values()), 0
    for person in central:
        keys, _ = parse_keys("\n".join(person["keys"]))
        count += len(keys)
        lines += [f"# {person['user']}" if re.fullmatch(r"[\w.@+-]+", person["user"]) else "#"]
        lines += [line for data, line in keys.items() if data not in own]
    os.makedirs(folder, 0o700, exist_ok=True)
    for place in folder, HOME:  # sshd reads no keys from where others may write (sshd_config(5), StrictModes)
        os.chmod(place, os.stat(place).st_mode & 0o7755)
    if rest and not rest.endswith("\n"):
        rest += "\n"
    text = rest + "\n".join([BEGIN, *lines, END, ""])
    if text != before or os.stat(path).st_mode & 0o77:
        write(path, text, 0o600)
    return {"own": len(own), "central": count, "rejected": bad[:20]}, unread


def host_keys():
    """The host's public keys, `type base64`, in the order in which sshd prefers them no more than another.

    Of the types that the stack takes alone: it refuses a report with any other.
    """
    texts = (read(path).split() for path in sorted(glob.glob(ROOT + "/etc/ssh/ssh_host_*_key.pub")))
    return [" ".join(words[:2]) for words in texts if len(words) > 1 and words[0] in HOST_KEYS][:8]


def sessions():
    """{"open", "active_at"}: the SSH sessions of the notebook's user.

    sshd names a session's process `sshd: user@pts/0` or `user@notty` (since 9.8 `sshd-session:`). A terminal's last
    use is its device's time; a session without one (scp, VS Code) counts as in use for as long as it is open.
    """
    user, active = pwd.getpwuid(os.stat(HOME).st_uid).pw_name, []
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            found = re.match(rf"sshd\S*: {re.escape(user)}@(\S+)", read(path).replace("\0", " "))
            if found:
                terminals = [os.stat("/dev/" + name) for name in found[1].split(",") if name.startswith("pts/")]
                active.append(int(max((max(t.st_atime, t.st_mtime) for t in terminals), default=time.time())))
        except OSError:
            continue  # it ended while we looked
    return {"open": len(active), "active_at": max(active, default=None)}


# --- ngrok's configuration -----------------------------------------------------------------------------------

OURS = "  # notebook-ssh"


def edit(text, path, change, pad=""):
    """`text` (YAML in block style) with the value at `path` replaced by change(value or None); None takes it away.

    Everything else stays as it was. A step `- name: x` means the item of a list that has this line.
    """
    step, rest = path[0], path[1:]
    first = re.match(r"(?:[ \t]*(?:#.*)?\n)*( *)\S", text)
    pad = first[1] if first else pad
    if step.startswith("- "):
        return edit_item(text, step[2:], rest, change, pad)
    found = re.search(rf"(?m)^{pad}{step}:[ \t]*(.*)\n((?:{pad}(?: |- ).*\n|[ \t]*(?:#.*)?\n)*)", text)
    at = len(text) if not pad else first.start(1) if first else 0
    begin, middle, finish = (found.start(), found.start(2), found.end()) if found else (at, at, at)
    old = found[1].strip() if found else None
    if not rest:
        new = change(old)
        head = text[begin:middle] if new == old else f"{pad}{step}: {new}\n" if new else ""
        return text[:begin] + head + text[middle:]
    if old and not old.startswith("#"):
        raise Trouble(
            "ngrok-config", f"~/SageMaker/.ngrok/config.yml: put what follows `{step}:` on its own lines, indented"
        )
    block = edit(text[middle:finish], rest, change, pad + "  ")
    head = text[begin:middle] or (f"{pad}{step}:\n" if block else "")
    return text[:begin] + head + block + text[finish:]


def edit_item(text, line, rest, change, pad):
    """`edit` in the item of a list that has `line`; the item is made when there is none."""
    key, _, value = line.partition(": ")
    items = re.split(rf"(?m)^(?={pad}- )", text)
    mark = re.compile(rf"(?m)^{pad}[- ] {key}: *[\"']?{value}[\"']?[ \t\r]*(?:#.*)?$")
    spot = next((number for number, item in enumerate(items) if mark.search(item)), None)
    if spot is None:
        spot = 1
        items.insert(spot, f"{pad}- {line}\n")
    inside = edit(items[spot].replace(f"{pad}- ", f"{pad}  ", 1), rest, change)
    items[spot] = f"{pad}- " + inside[len(pad) + 2 :]
    return "".join(items)


def free_address(old):
    """An address on the loopback for ngrok's local API: the port in `old` if it is free, else one that nobody uses."""
    wished = re.search(r":(\d{1,5})\b", old or "")
    for port in (int(wished[1]), 0) if wished else (0,):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return f"127.0.0.1:{probe.getsockname()[1]}"
            except (OSError, OverflowError):
                continue
    raise Trouble("ngrok-config", "no port of the loopback is free for ngrok's local API")


def configure(text, token, url):
    """`text` of config.yml (version 2 or 3) with our endpoint `ssh`, the token, and ngrok's own doors shut.

    An address that a person set is kept unless `url` (from the tag) names one; what we set ourselves has our mark.
    ngrok's reference: https://ngrok.com/docs/agent/config/v3, …/v2. A text without version is from before both and
    reads as 2.
    """
    text += "" if text.endswith("\n") or not text else "\n"
    text = edit(text, ["version"], lambda old: old or ("2" if text.strip() else "3"))
    if re.search(r"(?m)^version:\W*3", text):
        top, update, ssh = ["agent"], "update_check", ["endpoints", "- name: ssh"]
        # An endpoint without url would be https.
        text = edit(text, [*ssh, "upstream", "url"], lambda old: old or f"tcp://127.0.0.1:{PORT}")
        text = edit(text, [*ssh, "url"], lambda old: kept(old, url) or "tcp://" + OURS)
    else:
        top, update, ssh = [], "update", ["tunnels", "ssh"]
        text = edit(text, [*ssh, "remote_addr"], lambda old: kept(old, url and url[len("tcp://") :]))
        text = edit(text, [*ssh, "addr"], lambda old: old or str(PORT))
        text = edit(text, [*ssh, "proto"], lambda old: old or "tcp")
    text = edit(text, [*top, update], lambda old: "false")
    text = edit(text, [*top, "remote_management"], lambda old: "false")
    text = edit(text, [*top, "web_addr"], free_address)
    return edit(text, [*top, "authtoken"], lambda old: token or old)


def kept(old, wished):
    """The address that counts: the tag's, else the one a person wrote, else None."""
    if wished:
        return wished + OURS
    return old if old and OURS.strip() not in old and old.strip("\"'") else None


# --- ngrok's program -----------------------------------------------------------------------------------------

# Always the newest of version 3; ngrok publishes no checksum (https://ngrok.com/download).
DOWNLOAD = "https://bin.equinox.io/c/bNyj1mQVY4c/ngrok-v3-stable-linux-{arch}.tgz"


def install(renew):
    """The path of ngrok's agent, which stays on the volume. `renew`: the one we have is refused.

    It is downloaded when there is none, when another one is asked for, and after a year (agents are supported for
    14 months). A download that fails in any way leaves the one that works.
    """
    machine = "arm64" if os.uname().machine == "aarch64" else "amd64"
    url = (os.environ.get("NOTEBOOK_SSH_NGROK_DOWNLOAD") or DOWNLOAD).replace("{arch}", machine)
    wanted = os.environ.get("NOTEBOOK_SSH_NGROK_SHA256", "").lower()
    path, origin = NGROK + "ngrok", f"{url} {wanted}\n"
    have = os.path.isfile(path) and os.access(path, os.X_OK)
    if have and not renew and read(path + ".from") == origin and time.time() - os.stat(path).st_mtime < YEAR:
        return path
    try:
        download(url, wanted, path)
        write(path + ".from", origin)
    except (OSError, ValueError, LookupError, EOFError, tarfile.TarError, subprocess.SubprocessError) as why:
        if not have:
            raise Trouble("ngrok-download", f"ngrok's agent could not be had from {url}: {why}") from why
        say(f"ngrok's agent was not renewed: {why}")
    return path


def download(url, wanted, path):
    """Put the program in the archive at `url` at `path`, if it has the SHA-256 `wanted` (or none is) and runs."""
    archive, new = path + ".tgz", path + ".new"
    digest, limit = hashlib.sha256(), time.monotonic() + 300
    try:
        with urllib.request.urlopen(url, timeout=20) as answer, anew(archive) as file:
            # read1 returns after each piece, so that one that trickles meets the limit too.
            for chunk in iter(lambda: answer.read1(1 << 16), b""):
                digest.update(chunk)
                file.write(chunk)
                if file.tell() > 1 << 27 or time.monotonic() > limit:
                    raise ValueError("it is larger than 128 MB or takes longer than 5 minutes")
        if wanted and digest.hexdigest() != wanted:
            raise ValueError(f"its SHA-256 is {digest.hexdigest()}, not the {wanted} that the stack names")
        with tarfile.open(archive) as pack, anew(new) as file:
            file.write(pack.extractfile("ngrok").read())
        os.chmod(new, 0o755)
        shown = subprocess.run([new, "version"], stdin=subprocess.DEVNULL, capture_output=True, timeout=20)
        if b"version 3" not in shown.stdout:
            raise ValueError("it holds no ngrok agent of version 3")
        os.replace(new, path)
    finally:
        for left in archive, new:
            if os.path.lexists(left):
                os.unlink(left)


def say(text, **more):
    """A line for the worker, in the shape of ngrok's log."""
    print(json.dumps({"msg": text, "obj": "notebook-ssh", **more}), flush=True)


def tunnel(ask):
    """Prepare ngrok and become it; what goes wrong is said on standard output."""
    os.dup2(1, 2)
    os.close(3)  # our log is not ngrok's
    try:
        os.makedirs(NGROK, 0o700, exist_ok=True)
        program = install(ask["renew"])
        path = NGROK + "config.yml"
        before = whole(path)
        text = configure(before, ask["token"], ask["url"])
        if not re.search(r"(?m)^ *authtoken: *\S", text):
            raise Trouble(
                "ngrok-token-missing", "there is no ngrok token yet: an admin stores it in the stack's secret"
            )
        if text != before or os.stat(path).st_mode & 0o77:
            write(path, text, 0o600)
        say("starting web service", addr=re.search(r"(?m)^ *web_addr: *(\S+)", text)[1])
        os.execv(program, ["ngrok", "start", "--all", "--config", path, "--log=stdout", "--log-format=json"])
    except OSError as why:
        say("trouble", trouble=["files", blocked(why, NGROK)])
    except Trouble as why:
        say("trouble", trouble=why.args)


# --- the tunnel ----------------------------------------------------------------------------------------------

# What ngrok's codes mean to a person (https://ngrok.com/docs/errors).
CODES = {
    "105 106 107 300 4018": (
        "ngrok-token-invalid",
        "ngrok refuses the token: an admin stores a valid one in the stack's secret",
    ),
    "108 348 349": (
        "ngrok-session-limit",
        "the ngrok account runs as many agents as its plan allows: stop one, or upgrade",
    ),
    "121": ("ngrok-agent-old", "ngrok refuses this version of its agent; a new one is downloaded"),
    "307 309 310 311": (
        "ngrok-address-refused",
        "the reserved address is not this ngrok account's: correct the tag or config.yml",
    ),
    "334": ("ngrok-address-busy", "another ngrok agent holds this address: stop that one, or reserve another address"),
    "725 726 729": (
        "ngrok-monthly-limit",
        "the ngrok account has used up its month: wait for the next, or upgrade the plan",
    ),
    "8013": (
        "ngrok-card-required",
        "ngrok wants a card on file for TCP addresses: add one at dashboard.ngrok.com, Billing",
    ),
    "9009": ("ngrok-proxy-plan", "ngrok through a proxy needs a paid plan: upgrade, or let the notebook out directly"),
}
MEANING = {number: meaning for numbers, meaning in CODES.items() for number in numbers.split()}

# These pass by themselves more often than not: a session that lingers after a restart, a network that comes back.
SOON = "ngrok-session-limit", "ngrok-address-busy", "ngrok-unreachable", "ngrok-ended"


class Tunnel:
    """ngrok as the worker sees it: a child whose log is heard, and a local API that is asked where it is.

    phase: `off`, `connecting`, `connected` or `failed`. place: (host, port) or None. trouble: (code, message) or None.
    due: when `tend` should next be called (monotonic seconds).
    """

    def __init__(self):
        self.child = self.web = self.place = self.trouble = self.began = None
        self.phase, self.since, self.due, self.starts, self.lost, self.rest = "off", 0.0, 0.0, 0, False, b""
        self.wish, self.secrets = (None, None), []

    def tend(self, token, url):
        """Bring the tunnel to what is wished: this token (None: the one in config.yml) and this reserved address."""
        if (token, url) != self.wish:
            # The token that ngrok runs with already is no reason to move people to another address.
            same = token and not self.wish[0] and f"authtoken: {token}\n" in read(NGROK + "config.yml")
            if not same or url != self.wish[1]:
                self.stop()
            self.wish = token, url
        if time.monotonic() < self.due:
            return
        if self.child:
            self.look()
        else:
            self.start()

    def start(self):
        """Start the child; what it says is taken in by `hear`."""
        token, url = self.wish
        # ngrok repeats the token that it is refused with, be it the stack's or one that config.yml holds.
        self.secrets = [token, *re.findall(r"""(?m)^ *authtoken:[ \t]*["']?([^\s"'#]+)""", read(NGROK + "config.yml"))]
        ask = {"token": token, "url": url, "renew": bool(self.trouble and self.trouble[0] == "ngrok-agent-old")}
        self.child = start(sys.executable, OPT + "worker.py", "tunnel")
        try:
            with self.child.stdin as question:
                question.write(json.dumps(ask).encode())
        except OSError:
            pass  # it has fallen already, as `hear` will find
        self.web, self.rest, self.lost, self.starts, self.began = None, b"", False, self.starts + 1, time.time()
        self.due = time.monotonic() + 60
        self.be("connecting")

    def stop(self):
        """End the child, if there is one; forget its failures."""
        if self.child:
            self.child.terminate()
            self.reap()
        self.due = self.starts = 0
        self.trouble = None
        self.be("off")

    def reap(self):
        """Take leave of a child that ends, by force when it takes too long; its exit status."""
        child, self.child = self.child, None
        child.stdout.close()
        try:
            return child.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            child.kill()
            return child.wait()

    def be(self, phase, place=None):
        """Note how far we are and since when."""
        if (phase, place) != (self.phase, self.place):
            log(f"tunnel: {phase} {place or ''}")
            self.phase, self.place, self.since = phase, place, time.monotonic()

    def blame(self, code, message):
        """Note what stands in the way."""
        message = " ".join(message.split())[:400]
        if (code, message) != self.trouble:
            self.trouble = code, message
            log(f"{code}: {message}")

    def hear(self):
        """Take in what the child has written, without the token; at its end, settle when to start the next."""
        data = os.read(self.child.stdout.fileno(), 1 << 16)
        *lines, self.rest = (self.rest[-(1 << 16) :] + data).split(b"\n")
        for secret in filter(None, self.secrets):
            lines = [line.replace(secret.encode(), b"...") for line in lines]
        if lines:
            append_log(b"\n".join([*lines, b""]))
        for line in lines:
            self.hear_line(line.decode(errors="replace"))
        if data:
            # The log says that something happened; the local API says what is.
            self.due = min(self.due, time.monotonic() + (0.05 if self.phase == "connecting" else 1))
            return
        code = self.reap()
        if not self.trouble:
            self.blame("ngrok-ended", f"ngrok ended with status {code}; its log is {NGROK_LOG}")
        soon = self.trouble[0] in SOON or (self.trouble[0] == "ngrok-agent-old" and self.starts == 1)
        self.due = time.monotonic() + (min(2 ** (self.starts - 1), 60) if soon else min(60 * 2**self.starts, 900))
        self.be("connecting" if soon and self.starts < 5 else "failed")

    def hear_line(self, line):
        """One line of ngrok's log (JSON), or of what it prints when it gives up."""
        try:
            said = dict(json.loads(line))
        except (ValueError, TypeError):
            said = {}
        message, error = str(said.get("msg", "")), str(said.get("err") or "")
        if said.get("trouble"):
            self.blame(*said["trouble"])
        elif message == "starting web service":
            self.web = said.get("addr")
        elif "established" in message:
            self.lost = False
        elif "session closed" in message or "reconnect" in message:
            self.lost = True
            self.be("connecting")
        if said.get("name") == "ssh" and said.get("url"):
            self.found(said["url"])
        code = re.search(r"ERR_NGROK_(\d+)", line)
        if code and code[1] in MEANING:
            name, sentence = MEANING[code[1]]
            self.blame(name, f"{sentence} (ERR_NGROK_{code[1]})")
        elif code and not self.trouble:
            self.blame("ngrok-failed", f"ngrok: {error or line}")
        elif error not in ("", "<nil>") and self.lost:
            self.blame("ngrok-unreachable", f"ngrok cannot be reached; check the way out (proxy, NAT): {error}")
        elif line.startswith("ERROR") and not self.trouble:
            self.blame("ngrok-failed", f"ngrok: {line[6:].strip()}")

    def look(self):
        """Ask ngrok's local API where the tunnel is: /api/endpoints, or /api/tunnels of older agents."""
        self.due = time.monotonic() + (0.5 if self.phase == "connecting" else 30)
        for kind in "endpoints", "tunnels":
            try:
                for item in local_api(self.web, kind):
                    if item.get("name") == "ssh":
                        self.found(item.get("url") or item.get("public_url"))
                        return
            except (OSError, ValueError, LookupError, TypeError, AttributeError):
                continue

    def found(self, url):
        """Take `url` as where people connect, unless the session with ngrok is lost."""
        place = re.fullmatch(r"tcp://([\w.-]+):(\d+)", str(url))
        if place and not self.lost:
            self.trouble, self.starts = None, 0
            self.be("connected", (place[1], int(place[2])))


def local_api(web, kind):
    """What ngrok's local API at `web` lists as `kind`. OSError or ValueError unless all of it is there in time.

    urlopen's own timeout is for each read: one who trickles would hold the worker up for ever.
    """

    def late(*_):
        raise TimeoutError(f"{web} takes longer than {API_PATIENCE} seconds")

    signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, API_PATIENCE)
    try:
        with urllib.request.urlopen(f"http://{web}/api/{kind}", timeout=API_PATIENCE) as answer:
            return json.loads(answer.read(1 << 20))[kind]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def append_log(data):
    """Add to ngrok's log, of which the newer half stays when it passes 1 MB. A full disk loses lines, nothing else."""
    try:
        with open(NGROK_LOG, "r+b") as file:
            if file.seek(0, os.SEEK_END) > 1 << 20:
                file.seek(1 << 19)
                rest = file.read()
                file.seek(0)
                file.truncate()
                file.write(rest)
            file.write(data)
    except OSError:
        pass


# --- the worker ----------------------------------------------------------------------------------------------


class Worker:
    """Brings the notebook to what the stack wishes and tells it so, until nothing is wished any more."""

    def __init__(self):
        self.exchange = Exchange()
        self.exchange.answer = load(MINE + "answer.json")
        self.exchange.ahead = self.exchange.answer.get("ahead", 0)
        self.tunnel = Tunnel()
        self.troubles = {}  # (code, message) by what is not well
        self.keys = {"own": 0, "central": 0, "rejected": []}
        self.told = self.shown = None
        self.sync_at, self.files_at = time.monotonic() + 10, 0.0
        self.credit, self.credit_at = 5.0, time.monotonic()
        self.looks = self.answered = 0  # how often a command spoke, and up to which the stack was asked since
        if os.path.lexists(WAKE):
            os.unlink(WAKE)
        os.mkfifo(WAKE, 0o600)
        # For writing too, so that it stays open when a command has closed its end.
        self.ears = os.open(WAKE, os.O_RDWR | os.O_NONBLOCK)

    def run(self):
        """Act, tell, wait; returns when the mode is off, with everything of ours undone."""
        try:
            if "sync_after" not in self.exchange.answer:
                self.sync()
            while self.exchange.mode() != "off":
                self.act()
                if time.monotonic() >= self.sync_at or self.has_news():
                    self.sync()
                else:
                    self.wait()
            self.undo()
        finally:
            self.tunnel.stop()

    def undo(self):
        """Leave the home directory as it was."""
        self.tunnel.stop()
        for step in (
            lambda: put_keys(None),
            lambda: os.unlink(KEPT + "answer.json"),
            lambda: os.unlink(MINE + "answer.json"),
        ):
            try:
                step()
            except OSError as why:
                log(f"undo: {why}")
        self.show()

    def act(self):
        """Bring the notebook to what is wished, as far as it isn't."""
        if time.monotonic() >= self.files_at:
            self.files_at = time.monotonic() + 300
            self.tend_files()
        if self.exchange.mode() == "ngrok":
            self.tunnel.tend(self.ngrok("token", r"[\w-]+"), self.ngrok("url", r"tcp://[\w.-]+:\d+"))
        else:
            self.tunnel.stop()
        self.show()

    def ngrok(self, field, pattern):
        """What the stack says of ngrok, as far as it may stand in config.yml."""
        value = (self.exchange.answer.get("ngrok") or {}).get(field) or ""
        return value if re.fullmatch(pattern, value) else None

    def tend_files(self):
        """Keys, the editors' folders, SSH_INSTRUCTIONS, and that sshd answers."""
        self.shown = None
        try:
            self.troubles.pop("files", None)
            self.keys, unread = put_keys(self.exchange.answer.get("authorized_keys") or [])
            if unread:
                raise unread
            os.makedirs(VOLUME + "ssh", exist_ok=True)
            keep_editors()
            remember(self.exchange.answer)
        except OSError as why:
            self.blame("files", "files", blocked(why, HOME))
        if sshd_answers():
            self.troubles.pop("sshd", None)
            return
        os.write(1, b"!")  # asks the keeper for `set_up`
        self.files_at = time.monotonic() + 5
        self.blame("sshd", "sshd-down", f"sshd does not answer on port {PORT}; `systemctl status sshd` tells why")

    def blame(self, source, code, message):
        """Note what stands in the way of `source`, until that is well again."""
        if self.troubles.get(source) != (code, message):
            self.troubles[source] = code, message
            log(f"{code}: {message}")

    # telling the stack

    def phase(self):
        """How far we are, in the protocol's words."""
        if self.exchange.mode() == "ngrok":
            return self.tunnel.phase if self.tunnel.phase != "off" else "connecting"
        return "failed" if "sshd" in self.troubles else "connected"

    def problem(self):
        """What the stack should know of, or None. It keeps what we report: so what it said of central keys goes back."""
        stack = self.exchange.answer.get("problem") or {"code": ""}
        central = (stack["code"], stack["message"]) if stack["code"].startswith("central-key-") else None
        found = [self.tunnel.trouble, *self.troubles.values(), central]
        return next(({"code": each[0], "message": each[1]} for each in found if each), None)

    def facts(self):
        """What is, but for the sessions (docs/protocol.md)."""
        mode, (host, port) = self.exchange.mode(), self.tunnel.place or (None, None)
        return {
            "mode": mode,
            "phase": self.phase() if mode != "off" else "off",
            "host": host,
            "port": port,
            "host_keys": host_keys(),
            "keys": self.keys,
            "problem": self.problem(),
            "token_version": self.ngrok("token", r"[\w-]+") and self.exchange.answer["ngrok"].get("token_version"),
        }

    def sync(self):
        """Tell the stack what is and learn what should be."""
        facts, before, looks = self.facts(), self.exchange.answer, self.looks
        if self.exchange.sync({**facts, "sessions": sessions()}):
            self.told = facts
            self.files_at = 0
            new, old = self.exchange.answer.get("ngrok") or {}, before.get("ngrok") or {}
            if not new.get("token") and new.get("token_version") == old.get("token_version"):
                new["token"] = old.get("token")
            self.exchange.keep()
        elif "sync_after" not in before:
            # Not from the stack but kept from the last boot: the notebook's own tags know better.
            tags = self.exchange.errand(OPT + "worker.py", "tags", {"arn": self.exchange.arn}).get("tags")
            if tags is not None:
                self.exchange.answer = by_tags(before, tags)
                self.exchange.keep()
                self.files_at = 0
        self.answered = looks
        self.sync_at = time.monotonic() + self.exchange.delay

    def has_news(self):
        """Whether the stack should hear now. What comes and goes at once is told at leisure: five times, then each 20 s."""
        now = time.monotonic()
        self.credit, self.credit_at = min(5, self.credit + (now - self.credit_at) / 20), now
        fresh = self.phase() == "connecting" and now - self.tunnel.since < 3
        if fresh or self.exchange.failures or self.credit < 1 or self.facts() == self.told:
            return False
        self.credit -= 1
        return True

    # telling people

    def line(self):
        """The command that connects, or None while there is none."""
        if self.tunnel.place:
            return "ssh -p {1} ec2-user@{0}".format(*self.tunnel.place)
        way = self.exchange.answer.get("bastion") or {}
        if self.exchange.mode() == "bastion" and way.get("private_ip"):
            return f"ssh -J {way['user']}@{way['host']} ec2-user@{way['private_ip']}"
        return None

    def show(self):
        """Bring SSH_INSTRUCTIONS and what `ssh-status` shows up to date."""
        stack, failed = self.exchange.answer.get("problem"), self.exchange.failed
        wrong = [*([self.tunnel.trouble] if self.tunnel.trouble else []), *self.troubles.values()]
        wrong += [(stack["code"], stack["message"])] if stack else []
        wrong += [explain(*failed)] if failed else []
        status = {**self.facts(), "notebook": self.exchange.name, "line": self.line(), "wrong": wrong}
        status.update(began=self.tunnel.began, answered=self.answered)
        if status == self.shown:
            return
        self.shown = status
        try:
            write(STATUS, json.dumps(status))
            text = instructions(status)
            if os.path.islink(INSTRUCTIONS) or read(INSTRUCTIONS) != text:
                write(INSTRUCTIONS, text)
            self.troubles.pop("instructions", None)
        except OSError as why:
            self.blame("instructions", "files", blocked(why, INSTRUCTIONS))

    def wait(self):
        """Sleep until something is due or somebody speaks: ngrok, or a person's command."""
        until = self.exchange.answer.get("until")
        times = [self.sync_at, self.files_at, time.monotonic() + (3 if self.phase() == "connecting" else 60)]
        if self.exchange.mode() == "ngrok":
            times.append(self.tunnel.due)
        if until:
            times.append(time.monotonic() + until - time.time() - self.exchange.ahead)
        ears = [self.ears, *([self.tunnel.child.stdout] if self.tunnel.child else [])]
        heard = select.select(ears, [], [], max(0, min(times) - time.monotonic()))[0]
        if self.ears in heard:
            self.files_at = 0
            self.looks += 1
            if not self.line():
                self.sync_at = 0  # somebody waits for an address that the stack may know by now
            if b"restart" in os.read(self.ears, 4096):
                self.tunnel.stop()
        if self.tunnel.child and self.tunnel.child.stdout in heard:
            self.tunnel.hear()


# --- the notebook's own tags ---------------------------------------------------------------------------------

# As the stack reads the same tags (model/spec.py, docs/tags.md).
TAG_URL = re.compile(
    r"tcp://(?=[^:]{1,253}:)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)+:([1-9][0-9]{0,4})"
)
TAG_TIME = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[T ]([0-9]{2}:[0-9]{2})(:[0-9]{2})?(?:Z|([+-][0-9]{2}):?([0-9]{2}))?", re.I
)


def wish(tags):
    """What the notebook's own tags ask for: {"mode", "until", "ngrok": {"url"}, "users"}.

    One tag that cannot be understood turns everything off: with no stack to say what is wrong, less is given, not more.
    """
    key = os.environ.get("NOTEBOOK_SSH_TAG_KEY") or "ssh"
    value = {
        part: tags.get(key + part, "").strip() for part in ("", "-ngrok-url", "-users", "-until", "-restart", "-wake")
    }
    off = {"mode": "off", "until": None, "ngrok": {"url": None}, "users": []}
    mode, url, users = value[""].lower(), value["-ngrok-url"].lower(), value["-users"].split()
    found = TAG_URL.fullmatch(url)
    clear = (
        mode in ("ngrok", "bastion")
        and (not url or mode == "bastion" or (found and int(found[1]) <= 65535))
        and all(re.fullmatch(r"[A-Za-z0-9._@-]{1,64}", name) for name in users)
        and value["-restart"].lower() in ("", "now")
        and value["-wake"].lower() in ("", "yes")
    )
    if not clear:
        return off
    try:
        until = moment(value["-until"]) if value["-until"] else None
    except ValueError:
        return off
    users = list(dict.fromkeys(users))
    return {"mode": mode, "until": until, "ngrok": {"url": url or None if mode == "ngrok" else None}, "users": users}


def moment(text):
    """Epoch seconds of a date and time in ISO 8601; without a zone it is UTC. ValueError for anything else."""
    found = TAG_TIME.fullmatch(text)
    if not found:
        raise ValueError(text)
    day, minute, second, hours, minutes = found.groups()
    zone = f"{hours}:{minutes}" if hours else "+00:00"
    return int(datetime.datetime.fromisoformat(f"{day}T{minute}{second or ':00'}{zone}").timestamp())


def by_tags(answer, tags):
    """The answer that was kept, as far as the tags still ask for it. A person they do not name is not admitted."""
    asked = wish(tags)
    users = asked.pop("users")
    admitted = [person for person in answer.get("authorized_keys") or [] if person["user"] in users]
    return {**answer, **asked, "authorized_keys": admitted}


def read_tags(ask):
    """Print the tags of the notebook `arn`, as SageMaker knows them: what is left when the stack cannot be reached."""
    try:
        import botocore.session
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError:
        sys.exit(3)
    quick = Config(connect_timeout=5, read_timeout=5, retries={"max_attempts": 1})
    try:
        client = botocore.session.Session().create_client("sagemaker", REGION, config=quick)
        told = client.list_tags(ResourceArn=ask["arn"])["Tags"]
        print(json.dumps({"tags": {tag["Key"]: tag["Value"] for tag in told}}))
    except (BotoCoreError, ClientError) as why:
        print(json.dumps({"text": repr(why)}))


# --- what the worker looks after -----------------------------------------------------------------------------


def sshd_answers():
    """Whether something that speaks SSH listens on the notebook's port."""
    try:
        with socket.create_connection(("127.0.0.1", PORT), 3) as probe:
            return probe.recv(4) == b"SSH-"
    except OSError:
        return False


def keep_editors():
    """Let the editors' servers live on the volume, so that they are not installed anew at each start."""
    for name in EDITORS:
        link, place = f"{HOME}/{name}", f"{KEPT}editors/{name}"
        if not os.path.lexists(link):
            os.makedirs(os.path.dirname(link), exist_ok=True)
            os.symlink(place, link)
        if os.path.realpath(link) == os.path.realpath(place):
            os.makedirs(place, exist_ok=True)


def remember(answer):
    """Keep what the next start needs if the stack cannot be reached then: this program and the answer, without secrets."""
    os.makedirs(KEPT, 0o700, exist_ok=True)
    lasting = {key: value for key, value in answer.items() if key in ("mode", "until", "bastion", "authorized_keys")}
    lasting["ngrok"] = {"url": (answer.get("ngrok") or {}).get("url")}
    for name, text in (("answer.json", json.dumps(lasting)), ("worker.py", read(OPT + "worker.py"))):
        if read(KEPT + name) != text:
            write(KEPT + name, text, 0o600)


# --- what people read ----------------------------------------------------------------------------------------


def explain(status, text):
    """(code, message) for an exchange that failed."""
    if not status:
        hint = "check the way out (proxy, NAT or VPC endpoint)"
        return "api-unreachable", f"the stack cannot be reached; {hint}: {text[:200]}"
    try:
        said = json.loads(text)["message"]
    except (ValueError, LookupError, TypeError):
        said = "it is tried again"
    if status == 403 and said == "Forbidden":
        # API Gateway's word for a request through an interface endpoint that does not serve this API.
        said = (
            "a VPC endpoint for execute-api keeps this notebook from the public API; an admin sets the stack's ApiUrl"
        )
    return (
        "api-refused" if status < 500 else "api-unavailable",
        f"the stack does not take the report ({status}): {said}",
    )


def missing(status):
    """What is said in the place of an address that is not there."""
    if status["mode"] == "bastion" and status["phase"] == "connected":
        return "The notebook is ready; its private address is not known yet. Look again in a few seconds."
    return f"There is no address yet: {status['phase']}."


def instructions(status):
    """The text of SSH_INSTRUCTIONS for a status as `ssh-status` knows it."""
    if status["mode"] == "off":
        return "SSH to this notebook is off. To turn it on, tag the notebook instance ssh=ngrok or ssh=bastion.\n"
    line, lines = status["line"], [f"SSH to {status['notebook']}: {status['phase']}", ""]
    lines += [f"    {line or missing(status)}", ""]
    for code, message in status["wrong"]:
        lines += [f"What is wrong: {message} [{code}]", ""]
    for key in status["host_keys"]:
        kind, data = key.split()
        digest = base64.b64encode(hashlib.sha256(base64.b64decode(data)).digest()).decode().rstrip("=")
        lines += [f"Host key: SHA256:{digest} ({kind})"]
    keys = status["keys"]
    lines += [
        "",
        f"Keys admitted: {keys['own']} from ~/SageMaker/ssh/authorized_keys, {keys['central']} from your admin.",
    ]
    lines += [f"Line {bad['line']} of that file was left out: it is {bad['reason']}." for bad in keys["rejected"]]
    if not keys["own"] + keys["central"]:
        lines += ["Nobody can log in yet: there is no key."]
    lines += ["To add one, write the public key (a file that ends in .pub) into that file, on a line of its own,"]
    lines += ["and run copy-ssh-keys in a terminal here."]
    if line:
        target = line.split()[-1]
        copy = line.replace("ssh -p", "scp -P").replace("ssh -J", "scp -J").replace(target, f"FILE {target}:SageMaker/")
        lines += ["", f"Copy a file here:   {copy}"]
        lines += ['VS Code, Cursor:    Remote-SSH, "Connect to Host", then the line above']
        lines += ["PyCharm:            Remote Development or SSH interpreter, with the same host, port and user"]
    lines += [
        "",
        "In a terminal here: ssh-status, copy-ssh-keys, start-ssh-ngrok; each explains itself with --help.",
        "",
    ]
    return "\n".join(lines)


# --- root's part ---------------------------------------------------------------------------------------------

# For interactive sessions over SSH alone: scp, rsync and an editor's server must see no output and no delay.
# `-O`: root, or whoever else logs in, never reads the user's files.
PROFILE = """\
case $-:$SSH_CONNECTION in *i*:?*) if [ -O {home}/SageMaker ]; then
  export AWS_DEFAULT_REGION="${{AWS_DEFAULT_REGION:-{region}}}"
  export AWS_REGION="${{AWS_REGION:-$AWS_DEFAULT_REGION}}"
  if [ -r {home}/anaconda3/etc/profile.d/conda.sh ]; then
    . {home}/anaconda3/etc/profile.d/conda.sh
    case :$PATH: in *:{home}/anaconda3/bin:*) ;; *) PATH={home}/anaconda3/bin:$PATH ;; esac
  fi
fi ;; esac
"""


def set_up():
    """As root: the commands, the shell's set-up, ngrok's log, and sshd where it is not running."""
    for folder in ROOT + "/usr/local/bin", ROOT + "/etc/profile.d":
        os.makedirs(folder, exist_ok=True)
    for name in COMMANDS:
        settings = f"NOTEBOOK_SSH_ROOT='{ROOT}' NOTEBOOK_SSH_PORT={PORT}"
        text = f"#!/bin/sh\n{settings} exec '{sys.executable}' -I '{OPT}worker.py' {name} \"$@\"\n"
        write(f"{ROOT}/usr/local/bin/{name}", text, 0o755)
    write(ROOT + "/etc/profile.d/notebook-ssh.sh", PROFILE.format(home=HOME, region=REGION))
    owner = os.stat(HOME)
    file = os.open(NGROK_LOG, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    os.fchmod(file, 0o600)
    os.fchown(file, owner.st_uid, owner.st_gid)
    os.close(file)
    if not ROOT and not sshd_answers():
        # One that is on its way up, or that somebody else enabled, is theirs to stop. /etc is new at every start, so
        # that enabling it would serve nothing.
        if systemctl("is-enabled") and systemctl("is-active"):
            write(RUN + "sshd", "started by us\n")
        systemctl("start")


def put_back():
    """As root: stop sshd if it was we who started it. The commands stay until the next start, to say that SSH is off."""
    if read(RUN + "sshd"):
        systemctl("stop")
        os.unlink(RUN + "sshd")


def systemctl(verb):
    """The exit status of `systemctl verb sshd`; 0 is yes, or done."""
    return subprocess.run(["systemctl", "--quiet", verb, "sshd"], stdin=subprocess.DEVNULL, timeout=60).returncode


# --- people's commands ---------------------------------------------------------------------------------------

HELP = {
    "ssh-status": """\
ssh-status            how to connect, and what is wrong if something is
ssh-status --in-use   prints nothing; tells by its exit status whether an SSH session is open
Exit status: 0 connected (or in use), 1 not, 2 wrong usage.""",
    "copy-ssh-keys": """\
copy-ssh-keys         admits the public keys in ~/SageMaker/ssh/authorized_keys
Exit status: 0 done, 1 SSH is off or a file is in the way, 2 wrong usage.""",
    "start-ssh-ngrok": """\
start-ssh-ngrok       restarts the tunnel and shows its address; also named start-ngrok-ssh
Exit status: 0 connected, 1 not, 2 wrong usage.""",
}


def command(name, *arguments):
    """Run one of people's commands; returns the exit status."""
    name = "start-ssh-ngrok" if name == "start-ngrok-ssh" else name
    if arguments == ("--in-use",) and name == "ssh-status":
        return 0 if sessions()["open"] else 1
    if arguments:
        print(HELP[name])
        return 0 if arguments in (("--help",), ("-h",)) else 2
    if os.getuid() == 0:
        drop()  # with sudo, too, a user's files are only touched with that user's power
    status = load(STATUS)
    if status.get("mode", "off") == "off":
        print(instructions({"mode": "off"}), end="")
        return 1
    if name == "copy-ssh-keys":
        return copy_keys()
    if name == "start-ssh-ngrok" and status["mode"] != "ngrok":
        print(f"This notebook is reached by {status['mode']}: there is no tunnel to start.")
        return 1
    if not nudge(b"restart" if name == "start-ssh-ngrok" else b"look"):
        print("The agent is not running; restart the notebook, or ask your admin.")
        return 1
    if name == "start-ssh-ngrok":
        status = await_status(30, lambda now: now["began"] != status["began"] and now["phase"] != "connecting")
    elif not status["line"]:
        status = await_status(10, lambda now: now["answered"] != status["answered"])
    print(status["line"] or missing(status))
    for code, message in status["wrong"]:
        print(f"What is wrong: {message} [{code}]")
    if name == "start-ssh-ngrok" and status["phase"] != "connected":
        print(f"The end of {NGROK_LOG}:", *read(NGROK_LOG).splitlines()[-5:], sep="\n")
    return 0 if status["phase"] == "connected" else 1


def copy_keys():
    """`copy-ssh-keys`, once it is known that SSH is on."""
    try:
        keys, unread = put_keys(load(MINE + "answer.json").get("authorized_keys") or [])
        if unread:
            raise unread
    except OSError as why:
        print(f"What is wrong: {blocked(why, HOME)}")
        return 1
    print(f"Copying {keys['own'] + keys['central']} SSH keys...")
    for bad in keys["rejected"]:
        print(f"Line {bad['line']} of ~/SageMaker/ssh/authorized_keys was left out: it is {bad['reason']}.")
    nudge(b"keys")
    return 0


def await_status(seconds, is_new):
    """The status once `is_new` says so of it, or after `seconds` as it then is."""
    for _ in range(seconds * 10):
        time.sleep(0.1)
        status = load(STATUS)
        if is_new(status):
            break
    return status


def nudge(word):
    """Tell the running worker one word; False when none runs."""
    try:
        pipe = os.open(WAKE, os.O_WRONLY | os.O_NONBLOCK)  # fails when nobody reads (fifo(7))
        os.write(pipe, word)
        os.close(pipe)
        return True
    except OSError:
        return False


if __name__ == "__main__":
    verb = sys.argv[1]
    if verb in COMMANDS:
        sys.exit(command(*sys.argv[1:]))
    elif verb in ("tunnel", "tags"):
        {"tunnel": tunnel, "tags": read_tags}[verb](json.load(sys.stdin))
    else:
        {"work": lambda: Worker().run(), "set-up": set_up, "put-back": put_back}[verb]()
