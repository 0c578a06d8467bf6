"""The agent as the block carries it: it keeps the peace on the notebook and asks the stack what should be.

Four kinds of process, so that each holds only what it needs (docs/notebook.md, "How it is built"):

* the **keeper** runs as root, and does nothing but start the others. It reads no path that a user could have
  prepared and obeys nobody;
* **idle**, as the owner of /home/ec2-user, asks now and then; it ends when something is wished of this notebook;
* the **worker** (worker.py), as the same owner, does everything that is visible. The stack sends its text with the
  first answer; the block holds the text's SHA-256, so nothing else is ever run. It is kept on the volume;
* a **courier**, short-lived, is the only one that loads botocore: it carries one report.

What is exchanged is specified in docs/protocol.md. Standard library only, Python 3.9 or later. The stack strips
comments and docstrings before it packs this file, so both are free; every other byte counts (docs/block.md).
"""

import calendar
import fcntl
import hashlib
import json
import os
import random
import signal
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid

# Settings come as arguments of the keeper, `NAME=value`; its children inherit them in the environment.
get = os.environ.get
os.environ.update(word.split("=", 1) for word in sys.argv[1:] if word[:13] == "NOTEBOOK_SSH_")
ROOT = get("NOTEBOOK_SSH_ROOT", "")
HOME = ROOT + "/home/ec2-user"
VOLUME = HOME + "/SageMaker/"
KEPT = VOLUME + ".notebook-ssh/"
OPT = ROOT + "/opt/notebook-ssh/"
RUN = ROOT + "/run/notebook-ssh/"
MINE = RUN + "worker/"
LOG = ROOT + "/var/log/notebook-ssh.log"
WORKER = get("NOTEBOOK_SSH_WORKER", "")
REGION = get("NOTEBOOK_SSH_REGION", "")
MODES = "ngrok", "bastion", "off"


def read(path):
    """The file's text, at most 1 MB of it, or "" where there is none. Never waits: a pipe in its place is empty."""
    try:
        opener = lambda name, flags: os.open(name, flags | os.O_NONBLOCK)
        with open(path, encoding="utf8", errors="surrogateescape", newline="", opener=opener) as file:
            return file.read(1 << 20)
    except FileNotFoundError:
        return ""


def write(path, text, mode=0o644):
    """Replace the file by `text` in one step; a link or a pipe in its place is replaced, not followed and not waited for."""
    new = path + ".~"  # not the name of an editor's backup
    try:
        if os.path.lexists(new):
            os.unlink(new)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with open(os.open(new, flags, mode), "w", encoding="utf8", errors="surrogateescape", newline="") as file:
            os.fchmod(file.fileno(), mode)
            file.write(text)
        os.replace(new, path)
    finally:
        if os.path.lexists(new):
            os.unlink(new)


def log(text):
    """One line to our log, which every process has open as descriptor 3 and which begins anew at 1 MB; and to the journal."""
    line = time.strftime("%FT%TZ ", time.gmtime()) + text + "\n"
    if os.fstat(3).st_size > 1 << 20:
        os.ftruncate(3, 0)
    os.write(3, line.encode(errors="replace"))
    if get("JOURNAL_STREAM"):
        sys.stderr.write(line)


def load(path):
    """The JSON object in a file; {} where there is none."""
    try:
        return dict(json.loads(read(path)))
    except (OSError, ValueError, TypeError):
        return {}


def drop():
    """Become the owner of the home directory, for good, and end when the parent ends (prctl(2), PR_SET_PDEATHSIG).

    /home is root's, so nobody else chooses that owner.
    """
    import ctypes

    owner = os.stat(HOME)
    if os.getuid() != owner.st_uid:
        os.setgroups([])
        os.setgid(owner.st_gid)
        os.setuid(owner.st_uid)
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def start(python, program, *arguments):
    """A child that has dropped root's power, its input and output piped; for use in `with`."""
    pipe = subprocess.PIPE
    child = subprocess.Popen(
        [python, "-I", program, *arguments], stdin=pipe, stdout=pipe, preexec_fn=drop, pass_fds=[3]
    )

    def leave(*_):
        child.terminate()
        sys.exit(15)

    signal.signal(signal.SIGTERM, leave)
    return child


# --- the exchange --------------------------------------------------------------------------------------------


def courier(ask):
    """Sign and send one report with the notebook's role; print what came back. Leaves with 3 without botocore."""
    try:
        import botocore.session
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest
    except ImportError:
        sys.exit(3)
    reply = {"status": 0}
    try:
        session = botocore.session.Session()
        # The notebook's role, whatever profile a person has configured for themselves.
        for variable in "config_file", "credentials_file":
            session.set_config_variable(variable, os.devnull)
        request = AWSRequest("POST", ask["url"], data=ask["body"], headers={"Content-Type": "application/json"})
        # The steps of SigV4Auth.add_auth, but with the stack's clock.
        signer = SigV4Auth(session.get_credentials().get_frozen_credentials(), "execute-api", REGION)
        request.context["timestamp"] = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(time.time() + ask["ahead"]))
        signer._modify_request_before_signing(request)
        text = signer.string_to_sign(request, signer.canonical_request(request))
        signer._inject_signature_to_request(request, signer.signature(text, request))
        signed = urllib.request.Request(ask["url"], ask["body"].encode(), dict(request.headers))
        try:
            answer = urllib.request.urlopen(signed, timeout=10)  # proxies come from the environment
        except urllib.error.HTTPError as refusal:
            answer = refusal
        with answer:
            text = answer.read(1 << 20).decode(errors="replace")
            reply = {"status": answer.status, "text": text, "date": answer.headers["Date"]}
    except Exception as why:
        reply["text"] = repr(why)
    print(json.dumps(reply))


class Exchange:
    """The conversation with the stack. After `sync`: `answer` is the last good one, `failed` says why there is none.

    ahead: seconds by which the stack's clock is ahead of ours. delay: seconds to the next sync.
    """

    def __init__(self):
        identity = load(ROOT + "/opt/ml/metadata/resource-metadata.json")
        self.name, self.arn = identity["ResourceName"], identity["ResourceArn"]
        self.answer, self.failed = {}, None
        self.ahead = self.failures = self.sequence = 0
        self.boot = load(MINE + "boot") or self.new_boot()
        envs = HOME + "/anaconda3/envs/"
        self.pythons = sys.executable, envs + "JupyterSystemEnv/bin/python", envs + "python3/bin/python"

    def new_boot(self):
        """Name this boot, for as long as /run lives."""
        boot = {"boot": str(uuid.uuid4()), "booted_at": int(time.time() + self.ahead)}
        write(MINE + "boot", json.dumps(boot))
        return boot

    def mode(self):
        """What should be done now."""
        until = self.answer.get("until")
        return "off" if until and time.time() + self.ahead >= until else self.answer.get("mode", "off")

    def keep(self):
        """Leave the answer, with our clock's error, for the worker that starts next in this boot."""
        write(MINE + "answer.json", json.dumps({**self.answer, "ahead": self.ahead}), 0o600)

    def errand(self, program, verb, ask):
        """Let the first Python that has botocore run `program verb` with the question `ask`; its reply."""
        for python in self.pythons:
            if os.path.exists(python):
                with start(python, program, verb) as child:
                    try:
                        reply = child.communicate(json.dumps(ask).encode(), 40)[0]
                        if child.returncode != 3:
                            self.pythons = (python,)
                            return json.loads(reply)
                    except (subprocess.TimeoutExpired, ValueError):
                        child.kill()
        return {"status": 0, "text": "no Python has botocore"}

    def sync(self, report):
        """Tell what is, learn what should be. True when the stack answered."""
        # The time since boot grows through every restart of the agent, so it serves as the sequence.
        self.sequence = max(self.sequence + 1, int(time.clock_gettime(time.CLOCK_BOOTTIME) * 10))
        report = {**report, **self.boot, "agent": get("NOTEBOOK_SSH_VERSION"), "sequence": self.sequence}
        base = get("AWS_ENDPOINT_URL_EXECUTE_API") or get("NOTEBOOK_SSH_API")
        ask = {"url": f"{base}/notebooks/{self.name}/report", "body": json.dumps(report), "ahead": self.ahead}
        reply = self.errand(OPT + "agent.py", "courier", ask)
        try:
            ahead = calendar.timegm(time.strptime(reply["date"], "%a, %d %b %Y %H:%M:%S GMT")) - time.time()
            if abs(ahead - self.ahead) > 99:
                # The signature was out of its time; now that the time is known, the next one comes soon.
                self.failures = 0
            self.ahead = ahead if abs(ahead) > 2 else 0
        except (KeyError, TypeError, ValueError):
            pass
        try:
            answer = json.loads(reply["text"])
            if reply["status"] == 200 and answer["mode"] in MODES:
                self.delay = min(max(int(answer["sync_after"]), 1), 3600) * random.uniform(0.9, 1.1)
                self.answer, self.failed, self.failures = answer, None, 0
                return True
        except (KeyError, TypeError, ValueError):
            pass
        self.failures += 1
        self.delay = min(2**self.failures, 120) * random.uniform(0.5, 1)
        # An answer of 200 could hold the token.
        self.failed = reply["status"], "unreadable" if reply["status"] == 200 else reply["text"][:300]
        log(f"no answer: {self.failed}")
        if reply["status"] in (400, 409):
            # A clock was ahead, when the last report was sent or when this boot was named: it begins anew.
            self.boot = self.new_boot()
        return False


def vouched(data):
    """Whether `data` is the worker's program that the block vouches for."""
    return hashlib.sha256(data).hexdigest() == WORKER


def idle():
    """Ask until something is wished of this notebook; then leave the worker's text on standard output."""
    exchange = Exchange()
    # A worker that fell, or that ran before a stop, has left its answer behind, and what it did: only a worker can undo that.
    left = load(MINE + "answer.json") or load(KEPT + "answer.json")
    exchange.ahead = left.get("ahead", 0)
    fell = left.get("mode", "off")
    report = {"mode": fell, "phase": "off" if fell == "off" else "connecting"}
    data = (read(OPT + "worker.py") or read(KEPT + "worker.py")).encode(errors="replace")
    while True:
        exchange.sync({**report, "wants_worker": not vouched(data)})
        if not exchange.answer:
            exchange.answer = left
        data = exchange.answer.pop("worker", "").encode() or data
        if {fell, exchange.mode()} != {"off"} and vouched(data):
            exchange.keep()
            sys.stdout.buffer.write(data)
            return
        if exchange.mode() != "off" and not exchange.failed:
            why = "restart the notebook: its block is outdated"
            report.update(mode=exchange.mode(), phase="failed", problem={"code": "agent-outdated", "message": why})
        time.sleep(exchange.delay)


# --- the keeper ----------------------------------------------------------------------------------------------


def take_over():
    """Become the only agent: ask the one before to leave, by force after 20 seconds. The lock, held for good."""
    # Root's alone to open: whoever holds a lock on it would be taken for an agent, or for nobody at all.
    lock = os.open(RUN + "lock", os.O_RDWR | os.O_CREAT, 0o600)
    for attempt in range(300):
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        except BlockingIOError:
            # The kernel names the holder (fcntl(2), F_GETLK; 1 is F_WRLCK): a stale or recycled process id cannot be met.
            asked = fcntl.fcntl(lock, fcntl.F_GETLK, struct.pack("hhqqi4x", 1, 0, 0, 0, 0))
            holder = struct.unpack("hhqqi4x", asked)[4]
            # -1 is no process but a lock of an open file (F_OFD_SETLK), and kill(2) takes it for everybody.
            if holder > 0 and attempt % 100 == 0:
                os.kill(holder, signal.SIGKILL if attempt == 200 else signal.SIGTERM)
            time.sleep(0.1)
    sys.exit("another agent stays")


def keeper():
    """Root's part: prepare, then start the others, for ever."""
    os.umask(0o22)
    # Nothing local goes through a proxy, nor do the role's credentials.
    os.environ.update(HOME=HOME, no_proxy=(get("no_proxy") or get("NO_PROXY", "")) + ",127.0.0.1,169.254.169.254")
    for folder in OPT, RUN, MINE, os.path.dirname(LOG):
        os.makedirs(folder, exist_ok=True)
    os.dup2(os.open(LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT), 3)
    os.chmod(OPT, 0o755)
    os.chmod(__file__, 0o644)
    owner = os.stat(HOME)
    os.chown(MINE, owner.st_uid, owner.st_gid)
    program = OPT + "worker.py"

    def root(verb):
        """Run the worker's program as root for one of its fixed duties."""
        subprocess.run([sys.executable, "-I", program, verb], stdin=subprocess.DEVNULL, timeout=120)

    nap = 1
    lock = take_over()
    while lock:
        began = time.monotonic()
        with start(sys.executable, __file__, "idle") as child:
            data = child.stdout.read(1 << 20)
        if vouched(data):
            write(program, data.decode())
            root("set-up")
            with start(sys.executable, program, "work") as child:
                # Every byte asks for sshd to be looked after again.
                while child.stdout.read(1):
                    root("set-up")
            if not child.returncode:
                root("put-back")
        nap = min(nap * 2, 256) if time.monotonic() - began < 60 else 1
        time.sleep(nap)


if __name__ == "__main__":
    verb = sys.argv[-1]
    if verb == "courier":
        courier(json.load(sys.stdin))
    elif verb == "idle":
        idle()
    else:
        keeper()
