"""The agent that the block carries: supervises the processes on the notebook and reports to the stack.

Four kinds of process, each with the privileges and the memory that it needs (docs/notebook.md, "How it is built"):

* the **supervisor** runs as root and only starts the others. It reads no path that the notebook's user can write to,
  and takes no input from them;
* the **standby**, as the owner of /home/ec2-user, reports to the stack at intervals while SSH is off, and ends when
  SSH is turned on;
* the **worker** (worker.py), as the same user, does everything that the user sees. The stack sends its source with the
  first reply; the block holds the source's SHA-256, and nothing else is run. A copy is kept on the volume;
* the **report sender**, short-lived, gets the role's credentials, signs one report and sends it.

docs/protocol.md specifies the reports and the replies. Standard library only, Python 3.9 or later. The stack strips
comments and docstrings before it packs this file, so both are free; every other byte counts (docs/block.md). That is
why types stand in comments here.
"""

import email.utils
import fcntl
import hashlib
import hmac
import json
import os
import random
import re
import signal
import struct
import subprocess
import sys
import time
import typing  # noqa: F401  (in type comments)
import urllib.parse
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
    """Write one line to the log, which is open as descriptor 3 and is truncated at 1 MB, and to the journal.

    On a full disk it is lost.
    """
    line = time.strftime("%FT%TZ ", time.gmtime()) + text + "\n"
    if os.fstat(3).st_size > 1 << 20:
        os.ftruncate(3, 0)
    try:
        os.write(3, line.encode(errors="replace"))
    except Exception:
        pass
    if getenv("JOURNAL_STREAM"):
        sys.stderr.write(line)


def load_json(path):
    # type: (str) -> dict[str, typing.Any]
    """Return the JSON object in a file, or {} if there is none."""
    try:
        return dict(json.loads(read_text(path)))
    except Exception:
        return {}


def block_signals(*numbers):
    # type: (int) -> None
    """Let these signals wait, and no others."""
    signal.pthread_sigmask(signal.SIG_SETMASK, numbers)


def drop_privileges():
    # type: () -> None
    """Become the owner of the home directory for good, and get SIGTERM when the parent ends.

    /home belongs to root, so no other user can change that owner. prctl(2): PR_SET_PDEATHSIG.
    """
    import ctypes

    owner = os.stat(HOME)
    if os.getuid() != owner.st_uid:
        os.setgroups([])
        os.setgid(owner.st_gid)
        os.setuid(owner.st_uid)
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
    block_signals()


def spawn(program, *arguments):
    # type: (str, *str) -> subprocess.Popen[bytes]
    """Start a child without root's privileges, its standard input and output piped; a context manager.

    It has the environment that /etc/environment sets by now: the owner's script may set a proxy there at any time.

    No process handles SIGTERM: the kernel ends it, and its children with it. Python would run a handler only once the
    present call returns, so of a signal just before a read it would know at the end of that. Until the child is bound to
    this process's end, SIGTERM waits.
    """
    os.environ.update(
        re.findall("""(?m)^(?:export )?(\\w+)=["']?(.*?)["']? *$""", read_text(ROOT + "/etc/environment"))
    )
    block_signals(signal.SIGTERM)
    child = subprocess.Popen(
        [sys.executable, "-I", program, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        preexec_fn=drop_privileges,
        pass_fds=[3],
    )
    block_signals()
    return child


# --- reports and replies -------------------------------------------------------------------------------------


class AnyStatus(urllib.request.HTTPErrorProcessor):
    """Leaves each response as it is: none is an exception, and no redirect is followed."""

    def http_response(self, request, response):  # type: ignore[no-untyped-def]
        """Return the response."""
        return response

    https_response = http_response


def fetch(url, headers={}, body=None, method=None):
    # type: (str, dict[str, str], bytes | None, str | None) -> tuple[int, str, str | None]
    """Return (status, text, date) of a response: at most 1 MB, in 10 seconds for each read. OSError without one.

    A report goes through the environment's proxy, and a request for credentials (without `body`) never does.
    """
    request = urllib.request.Request(url, body, headers, method=method)
    proxy = urllib.request.ProxyHandler(None if body else {})
    with urllib.request.build_opener(AnyStatus, proxy).open(request, timeout=10) as response:
        return response.status, response.read(1 << 20).decode(errors="replace"), response.headers["Date"]


def get_credentials():
    # type: () -> dict[str, str]
    """Return the credentials of the notebook's role: a container's, or else those of IMDSv2's first role."""
    path, headers = getenv("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"), {}
    url = f"http://169.254.170.2{path}"
    if not path:
        base = getenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://169.254.169.254").rstrip("/") + "/latest/"
        name = "X-aws-ec2-metadata-token"
        headers = {name: fetch(base + "api/token", {name + "-ttl-seconds": "60"}, method="PUT")[1]}
        url = base + "meta-data/iam/security-credentials/"
        url += fetch(url, headers)[1].split("\n")[0]
    return json.loads(fetch(url, headers)[1])  # type: ignore[no-any-return]


def digest(data):
    # type: (bytes) -> str
    """Return the SHA-256 in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def sign(url, body, now, service="execute-api", **more):
    # type: (str, bytes, float, str, **str) -> dict[str, str]
    """Return the headers of a POST of JSON to a service, signed at `now` (epoch seconds) with the notebook's role.

    more: headers that are signed too; a new one's name must be behind the others' in the alphabet.
    AWS Signature Version 4: docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html.
    """
    credentials, date = get_credentials(), time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    address = urllib.parse.urlsplit(url)
    headers = {
        "content-type": "application/json",
        "host": address.netloc,
        "x-amz-date": date,
        "x-amz-security-token": credentials["Token"],
        **more,
    }
    names = ";".join(headers)
    lines = ["POST", urllib.parse.quote(address.path), "", *map(":".join, headers.items()), "", names]
    scope = f"{date[:8]}/{REGION}/{service}/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{date}\n{scope}\n" + digest("\n".join([*lines, digest(body)]).encode())
    key = b"AWS4" + credentials["SecretAccessKey"].encode()
    for part in *scope.split("/"), text:
        key = hmac.digest(key, part.encode(), "sha256")
    headers["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={credentials['AccessKeyId']}/{scope}, SignedHeaders={names}, Signature={key.hex()}"
    )
    return headers


def send_report():
    # type: () -> None
    """Sign the report on standard input with the notebook's role, send it, and print the response."""
    request, result = json.load(sys.stdin), {"status": 0}  # type: dict[str, typing.Any], dict[str, typing.Any]
    try:
        url, body = request["url"], request["body"].encode()
        headers = sign(url, body, time.time() + request["clock_offset"])
        result["status"], result["text"], result["date"] = fetch(url, headers, body)
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
        return (
            "off" if until is not None and time.time() + self.clock_offset >= until else self.reply.get("mode", "off")
        )

    def save_reply(self):
        # type: () -> None
        """Save the reply, with the clock's offset, for the next worker of this boot."""
        write_text(STATE_DIR + "reply.json", json.dumps({**self.reply, "clock_offset": self.clock_offset}), 0o600)

    def run_helper(self, program, verb, request):
        # type: (str, str, dict[str, typing.Any]) -> dict[str, typing.Any]
        """Run `program verb` with `request` on its standard input; return its result, or its failure as that of a report."""
        with spawn(program, verb) as child:
            try:
                return json.loads(child.communicate(json.dumps(request).encode(), 40)[0])  # type: ignore[no-any-return]
            except Exception as error:
                child.kill()
                return {"status": 0, "text": repr(error)}

    def sync(self, report):
        # type: (dict[str, typing.Any]) -> bool
        """Send a report and store the reply; return whether there was a valid one."""
        # The time since boot grows across restarts of the agent, so it serves as the sequence number.
        self.sequence = max(self.sequence + 1, int(time.clock_gettime(time.CLOCK_BOOTTIME) * 10))
        report = {**report, **self.boot, "agent": getenv("NOTEBOOK_SSH_VERSION"), "sequence": self.sequence}
        # Another address than the block's counts in the local run alone: the block's has https.
        base = getenv(ROOT and "AWS_ENDPOINT_URL_EXECUTE_API", getenv("NOTEBOOK_SSH_API"))
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
        except Exception:
            pass
        try:
            reply = json.loads(result["text"])
            if result["status"] == 200 and isinstance(reply["mode"], str):
                self.delay = min(max(int(reply["sync_after"]), 1), 3600) * random.uniform(0.9, 1.1)
                self.reply, self.error, self.failures = reply, None, 0
                return True
        except Exception:
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


def standby():
    # type: () -> None
    """Report until a mode other than "off" is requested; then write the worker's source to standard output."""
    client = StackClient()
    # The reply of a worker that crashed, or that ran before a stop: only a worker can undo what it did.
    saved = load_json(STATE_DIR + "reply.json") or load_json(PERSIST_DIR + "reply.json")
    client.clock_offset = saved.get("clock_offset", 0)
    mode = saved.get("mode", "off")
    report = {"mode": mode, "phase": "off" if mode == "off" else "connecting"}
    try:
        data = (read_text(INSTALL_DIR + "worker.py") or read_text(PERSIST_DIR + "worker.py")).encode(errors="replace")
    except Exception:
        data = b""  # the worker reports what is in the file's place
    while True:
        client.sync({**report, "worker": WORKER_SHA256 * (digest(data) != WORKER_SHA256)})
        if not client.reply:
            client.reply = saved
        data = client.reply.pop("worker", "").encode() or data
        if {mode, client.mode()} != {"off"} and digest(data) == WORKER_SHA256:
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
            # The kernel returns the holder (fcntl(2), F_GETLK), so no stale or recycled process id is met. A `struct flock`
            # is eight ints long: it begins with l_type, here F_WRLCK, and the seventh is l_pid.
            holder = struct.unpack("8i", fcntl.fcntl(lock, fcntl.F_GETLK, struct.pack("i28x", 1)))[6]
            # -1 stands for a lock of an open file (F_OFD_SETLK), and for every process in kill(2).
            if holder > 0 and attempt % 100 == 0:
                os.kill(holder, signal.SIGKILL if attempt == 200 else signal.SIGTERM)
            time.sleep(0.1)
    sys.exit("another agent holds the lock")


def supervisor():
    # type: () -> None
    """Prepare the directories as root, then start standby and worker in turn, without end."""
    os.umask(0o22)
    os.environ["HOME"] = HOME
    for folder in INSTALL_DIR, STATE_DIR, ROOT + "/var/log":
        os.makedirs(folder, exist_ok=True)
    os.dup2(os.open(ROOT + "/var/log/notebook-ssh.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT), 3)
    os.chmod(INSTALL_DIR, 0o755)
    os.chmod(__file__, 0o644)
    owner = os.stat(HOME)
    os.chown(STATE_DIR, owner.st_uid, owner.st_gid)
    program = INSTALL_DIR + "worker.py"

    def run_as_root(verb, word=b""):
        # type: (str, bytes) -> None
        """Run one of the worker's root commands; word: a byte of the worker's. SIGTERM waits for its end.

        Else it would go on next to that of the agent which comes after this one.
        """
        command = [sys.executable, "-I", program, verb, word.hex()]
        block_signals(signal.SIGTERM)
        subprocess.run(command, stdin=subprocess.DEVNULL, timeout=120, preexec_fn=block_signals)
        block_signals()

    delay = 1
    acquire_agent_lock()
    while True:
        started_at = time.monotonic()
        with spawn(__file__, "standby") as child:
            data = child.stdout.read(1 << 20)  # type: ignore[union-attr]
        if digest(data) == WORKER_SHA256:
            write_text(program, data.decode())
            run_as_root("root-setup")
            with spawn(program, "work") as child:
                # A byte requests another check of sshd. Of many only the last counts: ec2-user can write any number there.
                for word in iter(lambda: child.stdout.read1(1 << 20)[-1:], b""):  # type: ignore[union-attr]
                    run_as_root("root-setup", word)
            if not child.returncode:
                run_as_root("root-teardown")
        delay = min(delay * 2, 256) if time.monotonic() - started_at < 60 else 1
        time.sleep(delay)


if __name__ == "__main__":
    {"send-report": send_report, "standby": standby}.get(sys.argv[-1], supervisor)()
