"""The agent that the block carries: supervises the processes on the notebook and reports to the stack.

Four kinds of process, each with the privileges and the memory that it needs (docs/notebook.md, "How it is built"):

* the **supervisor** runs as root and only starts the others. It reads no path that the notebook's user can write to,
  and takes no input from them;
* the **standby**, as the owner of /home/ec2-user, reports to the stack at intervals while SSH is off, and ends when
  SSH is turned on;
* the **worker** (worker.py), as the same user, does everything that the user sees. The stack sends its source with the
  first reply; the block holds the source's SHA-256, and nothing else is run. A copy is kept on the volume;
* the **report sender**, short-lived, is the only process that imports botocore: it sends one report.

docs/protocol.md specifies the reports and the replies. Standard library only, Python 3.9 or later. The stack strips
comments and docstrings before it packs this file, so both are free; every other byte counts (docs/block.md). That is
why types stand in comments here.
"""

import email.utils
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
import typing  # noqa: F401  (in type comments)
import urllib.request

# Settings are arguments of the supervisor, `NAME=value`; its children inherit them in the environment.
getenv = os.environ.get
os.environ.update(word.split("=", 1) for word in sys.argv[1:] if word[:13] == "NOTEBOOK_SSH_")  # type: ignore[misc]
ROOT = getenv("NOTEBOOK_SSH_ROOT", "")
HOME = ROOT + "/home/ec2-user"
VOLUME_DIR = HOME + "/SageMaker/"
PERSIST_DIR = VOLUME_DIR + ".notebook-ssh/"
INSTALL_DIR = ROOT + "/opt/notebook-ssh/"
RUN_DIR = ROOT + "/run/notebook-ssh/"
STATE_DIR = RUN_DIR + "worker/"
LOG_FILE = ROOT + "/var/log/notebook-ssh.log"
WORKER_SHA256 = getenv("NOTEBOOK_SSH_WORKER", "")
REGION = getenv("NOTEBOOK_SSH_REGION", "")


def read_text(path):
    # type: (str) -> str
    """Return the file's text, at most 1 MB of it, or "" if there is no file. Never blocks: a FIFO reads as empty."""
    try:
        opener = lambda name, flags: os.open(name, flags | os.O_NONBLOCK)
        with open(path, encoding="utf8", errors="surrogateescape", newline="", opener=opener) as file:
            return file.read(1 << 20)
    except FileNotFoundError:
        return ""


def write_text(path, text, mode=0o644):
    # type: (str, str, int) -> None
    """Replace the file atomically. A symbolic link or FIFO at `path` is replaced, neither followed nor waited for."""
    new = path + ".~"  # differs from the name of an editor's backup
    try:
        if os.path.lexists(new):
            os.unlink(new)
        file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with open(file, "w", encoding="utf8", errors="surrogateescape", newline="") as stream:
            os.fchmod(file, mode)
            stream.write(text)
        os.replace(new, path)
    finally:
        if os.path.lexists(new):
            os.unlink(new)


def log(text):
    # type: (str) -> None
    """Write one line to the log, which is open as descriptor 3 and is truncated at 1 MB, and to the journal."""
    line = time.strftime("%FT%TZ ", time.gmtime()) + text + "\n"
    if os.fstat(3).st_size > 1 << 20:
        os.ftruncate(3, 0)
    os.write(3, line.encode(errors="replace"))
    if getenv("JOURNAL_STREAM"):
        sys.stderr.write(line)


def load_json(path):
    # type: (str) -> dict[str, typing.Any]
    """Return the JSON object in a file, or {} if there is none."""
    try:
        return dict(json.loads(read_text(path)))
    except (OSError, ValueError, TypeError):
        return {}


def drop_privileges():
    # type: () -> None
    """Become the owner of the home directory for good, and end when the parent ends (prctl(2), PR_SET_PDEATHSIG).

    /home belongs to root, so no other user can change that owner.
    """
    import ctypes

    owner = os.stat(HOME)
    if os.getuid() != owner.st_uid:
        os.setgroups([])
        os.setgid(owner.st_gid)
        os.setuid(owner.st_uid)
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def spawn(python, program, *arguments):
    # type: (str, str, *str) -> subprocess.Popen[bytes]
    """Start a child without root's privileges, its standard input and output piped; a context manager."""
    child = subprocess.Popen(
        [python, "-I", program, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        preexec_fn=drop_privileges,
        pass_fds=[3],
    )

    def terminate(*_):
        # type: (object) -> None
        child.terminate()
        sys.exit(15)

    signal.signal(signal.SIGTERM, terminate)
    return child


# --- reports and replies -------------------------------------------------------------------------------------


def send_report():
    # type: () -> None
    """Sign the report on standard input with the notebook's role, send it, and print the response.

    Exits with status 3 if botocore cannot be imported.
    """
    try:
        import botocore.session
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest
    except ImportError:
        sys.exit(3)
    request, result = json.load(sys.stdin), {"status": 0}  # type: dict[str, typing.Any], dict[str, typing.Any]
    try:
        session = botocore.session.Session()
        # The notebook's role, whatever profile the user has configured.
        session.set_config_variable("config_file", os.devnull)
        session.set_config_variable("credentials_file", os.devnull)
        unsigned = AWSRequest(
            "POST", request["url"], data=request["body"], headers={"Content-Type": "application/json"}
        )
        # The steps of SigV4Auth.add_auth, with the stack's clock.
        signer = SigV4Auth(session.get_credentials().get_frozen_credentials(), "execute-api", REGION)  # type: ignore[union-attr]
        unsigned.context["timestamp"] = time.strftime(
            "%Y%m%dT%H%M%SZ", time.gmtime(time.time() + request["clock_offset"])
        )
        signer._modify_request_before_signing(unsigned)  # type: ignore[attr-defined]
        signer._inject_signature_to_request(  # type: ignore[attr-defined]
            unsigned, signer.signature(signer.string_to_sign(unsigned, signer.canonical_request(unsigned)), unsigned)
        )
        signed = urllib.request.Request(request["url"], request["body"].encode(), dict(unsigned.headers))
        try:
            response = urllib.request.urlopen(signed, timeout=10)  # proxies come from the environment
        except urllib.request.HTTPError as error:
            response = error
        with response:
            text = response.read(1 << 20).decode(errors="replace")
            result = {"status": response.status, "text": text, "date": response.headers["Date"]}
    except Exception as error:
        result["text"] = repr(error)
    print(json.dumps(result))


class StackClient:
    """Exchanges reports for replies.

    After `sync`: `reply` is the last good reply, `error` is (HTTP status, text) if this one failed, else None.
    clock_offset: seconds by which the stack's clock is ahead of this one. delay: seconds until the next `sync`.
    """

    def __init__(self):
        # type: () -> None
        metadata = load_json(ROOT + "/opt/ml/metadata/resource-metadata.json")
        self.name, self.arn = metadata["ResourceName"], metadata["ResourceArn"]  # type: str, str
        self.reply, self.error = {}, None  # type: dict[str, typing.Any], tuple[int, str] | None
        self.clock_offset = self.failures = self.sequence = 0  # type: float
        self.boot = load_json(STATE_DIR + "boot") or self.new_boot()
        envs = HOME + "/anaconda3/envs/"
        self.pythons = sys.executable, envs + "JupyterSystemEnv/bin/python", envs + "python3/bin/python"  # type: tuple[str, ...]

    def new_boot(self):
        # type: () -> dict[str, typing.Any]
        """Give this boot a new id, which lasts as long as /run."""
        boot = {"boot": os.urandom(16).hex(), "booted_at": int(time.time() + self.clock_offset)}
        write_text(STATE_DIR + "boot", json.dumps(boot))
        return boot

    def mode(self):
        # type: () -> str
        """Return the mode that the last reply requests now: "off" from its end time on."""
        until = self.reply.get("until")
        return "off" if until and time.time() + self.clock_offset >= until else self.reply.get("mode", "off")

    def save_reply(self):
        # type: () -> None
        """Save the reply, with the clock's offset, for the next worker of this boot."""
        write_text(STATE_DIR + "reply.json", json.dumps({**self.reply, "clock_offset": self.clock_offset}), 0o600)

    def run_helper(self, program, verb, request):
        # type: (str, str, dict[str, typing.Any]) -> dict[str, typing.Any]
        """Run `program verb` in the first Python that has botocore, with `request` on its standard input; return its result."""
        for python in self.pythons:
            if os.path.exists(python):
                with spawn(python, program, verb) as child:
                    try:
                        result = child.communicate(json.dumps(request).encode(), 40)[0]
                        if child.returncode != 3:
                            self.pythons = (python,)
                            return json.loads(result)  # type: ignore[no-any-return]
                    except (subprocess.TimeoutExpired, ValueError):
                        child.kill()
        return {"status": 0, "text": "no Python has botocore"}

    def sync(self, report):
        # type: (dict[str, typing.Any]) -> bool
        """Send a report and store the reply; return whether there was a valid one."""
        # The time since boot grows across restarts of the agent, so it serves as the sequence number.
        self.sequence = max(self.sequence + 1, int(time.clock_gettime(time.CLOCK_BOOTTIME) * 10))
        report = {**report, **self.boot, "agent": getenv("NOTEBOOK_SSH_VERSION"), "sequence": self.sequence}
        base = getenv("AWS_ENDPOINT_URL_EXECUTE_API") or getenv("NOTEBOOK_SSH_API")
        request = {
            "url": f"{base}/notebooks/{self.name}/report",
            "body": json.dumps(report),
            "clock_offset": self.clock_offset,
        }
        result = self.run_helper(INSTALL_DIR + "agent.py", "send-report", request)
        try:
            offset = email.utils.parsedate_to_datetime(result["date"]).timestamp() - time.time()
            if abs(offset - self.clock_offset) > 99:
                # The signature had expired; the next report, with the right time, follows soon.
                self.failures = 0
            self.clock_offset = offset if abs(offset) > 2 else 0
        except (KeyError, TypeError, ValueError):
            pass
        try:
            reply = json.loads(result["text"])
            if result["status"] == 200 and isinstance(reply["mode"], str):
                self.delay = min(max(int(reply["sync_after"]), 1), 3600) * random.uniform(0.9, 1.1)
                self.reply, self.error, self.failures = reply, None, 0
                return True
        except (KeyError, TypeError, ValueError):
            pass
        self.failures += 1
        self.delay = min(2**self.failures, 120) * random.uniform(0.5, 1)
        # A response with status 200 could hold the token.
        self.error = result["status"], "unreadable" if result["status"] == 200 else result["text"][:300]
        log(f"no reply: {self.error}")
        if result["status"] in (400, 409):
            # A clock was ahead at the last report or when this boot got its id: it gets another one.
            self.boot = self.new_boot()
        return False


def checksum_matches(data):
    # type: (bytes) -> bool
    """Return whether `data` is the worker's source whose SHA-256 is in the block."""
    return hashlib.sha256(data).hexdigest() == WORKER_SHA256


def standby():
    # type: () -> None
    """Report until a mode other than "off" is requested; then write the worker's source to standard output."""
    client = StackClient()
    # The reply of a worker that crashed, or that ran before a stop: only a worker can undo what it did.
    saved = load_json(STATE_DIR + "reply.json") or load_json(PERSIST_DIR + "reply.json")
    client.clock_offset = saved.get("clock_offset", 0)
    mode = saved.get("mode", "off")
    report = {"mode": mode, "phase": "off" if mode == "off" else "connecting"}
    data = (read_text(INSTALL_DIR + "worker.py") or read_text(PERSIST_DIR + "worker.py")).encode(errors="replace")
    while True:
        client.sync({**report, "wants_worker": not checksum_matches(data)})
        if not client.reply:
            client.reply = saved
        data = client.reply.pop("worker", "").encode() or data
        if {mode, client.mode()} != {"off"} and checksum_matches(data):
            client.save_reply()
            sys.stdout.buffer.write(data)
            return
        if client.mode() != "off" and not client.error:
            report = {
                "mode": client.mode(),
                "phase": "failed",
                "problem": {"code": "agent-outdated", "message": "restart the notebook: its block is outdated"},
            }
        time.sleep(client.delay)


# --- the supervisor ------------------------------------------------------------------------------------------


def acquire_agent_lock():
    # type: () -> int
    """Become the only agent: terminate the one that holds the lock, with SIGKILL after 20 seconds.

    Returns the lock's descriptor, which stays open.
    """
    # Only root can open it: a process of another user that locked it would be taken for an agent.
    lock = os.open(RUN_DIR + "lock", os.O_RDWR | os.O_CREAT, 0o600)
    for attempt in range(300):
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        except BlockingIOError:
            # The kernel returns the holder (fcntl(2), F_GETLK; 1 is F_WRLCK), so no stale or recycled process id is met.
            holder = struct.unpack("hhqqi4x", fcntl.fcntl(lock, fcntl.F_GETLK, struct.pack("hhqqi4x", 1, 0, 0, 0, 0)))[
                4
            ]
            # -1 stands for a lock of an open file (F_OFD_SETLK), and for every process in kill(2).
            if holder > 0 and attempt % 100 == 0:
                os.kill(holder, signal.SIGKILL if attempt == 200 else signal.SIGTERM)
            time.sleep(0.1)
    sys.exit("another agent holds the lock")


def supervisor():
    # type: () -> None
    """Prepare the directories as root, then start standby and worker in turn, without end."""
    os.umask(0o22)
    # Neither local requests nor those for the role's credentials go through a proxy.
    os.environ.update(HOME=HOME, no_proxy=(getenv("no_proxy") or getenv("NO_PROXY", "")) + ",127.0.0.1,169.254.169.254")
    for folder in INSTALL_DIR, STATE_DIR, ROOT + "/var/log":
        os.makedirs(folder, exist_ok=True)
    os.dup2(os.open(LOG_FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT), 3)
    os.chmod(INSTALL_DIR, 0o755)
    os.chmod(__file__, 0o644)
    owner = os.stat(HOME)
    os.chown(STATE_DIR, owner.st_uid, owner.st_gid)
    program = INSTALL_DIR + "worker.py"

    def run_as_root(verb):
        # type: (str) -> None
        """Run one of the worker's root commands."""
        subprocess.run([sys.executable, "-I", program, verb], stdin=subprocess.DEVNULL, timeout=120)

    delay = 1
    acquire_agent_lock()
    while True:
        started_at = time.monotonic()
        with spawn(sys.executable, __file__, "standby") as child:
            data = child.stdout.read(1 << 20)  # type: ignore[union-attr]
        if checksum_matches(data):
            write_text(program, data.decode())
            run_as_root("root-setup")
            with spawn(sys.executable, program, "work") as child:
                # Each byte requests another check of sshd.
                while child.stdout.read(1):  # type: ignore[union-attr]
                    run_as_root("root-setup")
            if not child.returncode:
                run_as_root("root-teardown")
        delay = min(delay * 2, 256) if time.monotonic() - started_at < 60 else 1
        time.sleep(delay)


if __name__ == "__main__":
    {"send-report": send_report, "standby": standby}.get(sys.argv[-1], supervisor)()
