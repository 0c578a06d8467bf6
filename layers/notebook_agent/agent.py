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
    """The file's text, or "" where there is none."""
    try:
        with open(path, encoding="utf8", errors="surrogateescape", newline="") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def write(path, text, mode=0o644):
    """Replace the file by `text` in one step; a link in its place is replaced, not followed."""
    new = path + ".new"
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
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
        sys.exit()

    signal.signal(signal.SIGTERM, leave)
    return child


def fetch(url, body=None, headers={}, timeout=10):
    """(status, text, headers); proxies come from the environment. OSError when there is no answer."""
    try:
        answer = urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=timeout)
    except urllib.error.HTTPError as refusal:
        answer = refusal
    with answer:
        return answer.status, answer.read(1 << 20).decode(errors="replace"), answer.headers


# --- the exchange --------------------------------------------------------------------------------------------


def courier(ask):
    """Sign and send one report with the notebook's role; print what came back. Leaves with 3 without botocore.

    Without an answer, and when `ask` names the notebook's ARN, the notebook's own tags are told: the last resort.
    """
    try:
        import botocore.session
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.config import Config
    except ImportError:
        sys.exit(3)
    reply = {"status": 0}
    session = botocore.session.Session()
    try:
        request = AWSRequest("POST", ask["url"], data=ask["body"], headers={"Content-Type": "application/json"})
        # The steps of SigV4Auth.add_auth, but with the stack's clock.
        signer = SigV4Auth(session.get_credentials().get_frozen_credentials(), "execute-api", REGION)
        request.context["timestamp"] = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(time.time() + ask["ahead"]))
        signer._modify_request_before_signing(request)
        text = signer.string_to_sign(request, signer.canonical_request(request))
        signer._inject_signature_to_request(request, signer.signature(text, request))
        reply["status"], reply["text"], headers = fetch(ask["url"], ask["body"].encode(), dict(request.headers))
        reply["date"] = headers["Date"]
    except Exception as why:
        reply["text"] = repr(why)
    if ask["arn"] and reply["status"] != 200:
        try:
            quick = Config(connect_timeout=5, read_timeout=5, retries={"max_attempts": 1})
            client = session.create_client("sagemaker", REGION, config=quick)
            reply["tags"] = {tag["Key"]: tag["Value"] for tag in client.list_tags(ResourceArn=ask["arn"])["Tags"]}
        except Exception as why:
            reply["text"] += repr(why)
    print(json.dumps(reply))


class Exchange:
    """The conversation with the stack. After `sync`: `answer` is the last good one, `failed` says why there is none.

    ahead: seconds by which the stack's clock is ahead of ours. delay: seconds to the next sync.
    """

    def __init__(self):
        identity = load(ROOT + "/opt/ml/metadata/resource-metadata.json")
        self.name, self.arn = identity["ResourceName"], identity["ResourceArn"]
        self.boot = load(MINE + "boot") or self.new_boot()
        self.answer, self.failed = {}, None
        self.ahead = self.failures = self.sequence = 0
        envs = HOME + "/anaconda3/envs/"
        self.pythons = sys.executable, envs + "JupyterSystemEnv/bin/python", envs + "python3/bin/python"

    def new_boot(self):
        """Name this boot, for as long as /run lives."""
        boot = {"boot": str(uuid.uuid4()), "booted_at": int(time.time())}
        write(MINE + "boot", json.dumps(boot))
        return boot

    def mode(self):
        """What should be done now."""
        until = self.answer.get("until")
        return "off" if until and time.time() + self.ahead >= until else self.answer.get("mode", "off")

    def carry(self, report):
        """Send `report` by a courier, with the first Python that has botocore; the courier's reply."""
        # The time since boot grows through every restart of the agent, so it serves as the sequence.
        self.sequence = max(self.sequence + 1, int(time.clock_gettime(time.CLOCK_BOOTTIME) * 10))
        ask = {
            "url": f"{get('AWS_ENDPOINT_URL_EXECUTE_API') or get('NOTEBOOK_SSH_API')}/notebooks/{self.name}/report",
            "body": json.dumps(
                {"agent": get("NOTEBOOK_SSH_VERSION", ""), **report, **self.boot, "sequence": self.sequence}
            ),
            "ahead": self.ahead,
            "arn": not self.answer and self.arn,
        }
        for python in self.pythons:
            if os.path.exists(python):
                with start(python, OPT + "agent.py", "courier") as child:
                    try:
                        reply = child.communicate(json.dumps(ask).encode(), 40)[0]
                        if child.returncode != 3:
                            self.pythons = (python,)
                            return json.loads(reply)
                    except (subprocess.TimeoutExpired, ValueError):
                        child.kill()
        return {"status": 0, "text": "no Python with botocore answered"}

    def sync(self, report):
        """Tell what is, learn what should be. True when the stack answered."""
        reply = self.carry(report)
        now = time.time()
        try:
            ahead = calendar.timegm(time.strptime(reply["date"], "%a, %d %b %Y %T GMT")) - now
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
        self.failed = reply["status"], reply["text"][:300]
        log(f"the stack did not answer: {self.failed}")
        if reply["status"] == 409:
            # A clock was ahead when the last report was sent: this boot begins anew.
            self.boot = self.new_boot()
        if "tags" in reply:
            self.answer = {**load(KEPT + "answer.json"), **wish(reply["tags"], now + self.ahead)}
        return False


def wish(tags, now):
    """What the notebook's own tags ask for, in the shape of the stack's answer."""
    key = get("NOTEBOOK_SSH_TAG_KEY") or "ssh"
    mode, until = tags.get(key, "").strip().lower(), tags.get(key + "-until", "").strip()
    try:
        until = until and calendar.timegm(time.strptime(until.rstrip("Zz"), "%Y-%m-%dT%H:%M:%S"))
    except ValueError:
        until = now  # a time that cannot be read ends access rather than leaving it open
    return {"mode": mode if mode in MODES else "off", "until": until, "ngrok": {"url": tags.get(key + "-ngrok-url")}}


def idle():
    """Ask until something is wished of this notebook; then leave the worker's text on standard output."""
    exchange = Exchange()
    while True:
        text = read(OPT + "worker.py") or read(KEPT + "worker.py")
        have = hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest() == WORKER
        exchange.sync({"mode": "off", "phase": "off", "wants_worker": not have})
        if exchange.failures and not exchange.answer:
            exchange.answer = load(KEPT + "answer.json")
        text = text if have else exchange.answer.pop("worker", None)
        if exchange.mode() != "off" and text:
            write(MINE + "answer.json", json.dumps(exchange.answer), 0o600)
            sys.stdout.buffer.write(text.encode(errors="surrogateescape"))
            return
        time.sleep(exchange.delay)


# --- the keeper ----------------------------------------------------------------------------------------------


def take_over():
    """Become the only agent: ask the one before to leave, by force after 20 seconds. The lock, held for good."""
    lock = open(RUN + "lock", "a")
    for attempt in range(300):
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        except BlockingIOError:
            # The kernel names the holder (fcntl(2), F_GETLK): a stale or recycled process id cannot be met.
            asked = fcntl.fcntl(lock, fcntl.F_GETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))
            holder = struct.unpack("hhqqi4x", asked)[4]
            if holder and attempt % 100 == 0:
                os.kill(holder, signal.SIGKILL if attempt == 200 else signal.SIGTERM)
            time.sleep(0.1)
    sys.exit("another agent does not leave")


def keeper():
    """Root's part: prepare, then start the others, for ever."""
    os.umask(0o22)
    os.environ["HOME"] = HOME
    for folder in OPT, RUN, MINE, os.path.dirname(LOG):
        os.makedirs(folder, exist_ok=True)
    os.dup2(os.open(LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT), 3)
    os.chmod(OPT, 0o755)
    os.chmod(__file__, 0o644)
    owner = os.stat(HOME)
    os.chown(MINE, owner.st_uid, owner.st_gid)
    lock = take_over()
    program = OPT + "worker.py"

    def root(verb):
        """Run the worker's program as root for one of its fixed duties."""
        subprocess.run([sys.executable, "-I", program, verb], stdin=subprocess.DEVNULL, timeout=120)

    while lock:
        with start(sys.executable, __file__, "idle") as child:
            text = child.stdout.read(1 << 20)
        if hashlib.sha256(text).hexdigest() == WORKER:
            write(program, text.decode(errors="surrogateescape"))
            root("set-up")
            with start(sys.executable, program, "work") as child:
                # Every byte asks for sshd to be looked after again.
                while child.stdout.read(1):
                    root("set-up")
            if not child.returncode:
                root("put-back")
        elif text:
            log("the stack's worker is of another version: restart the notebook")
        time.sleep(3)


if __name__ == "__main__":
    verb = sys.argv[-1]
    if verb == "courier":
        courier(json.load(sys.stdin))
    elif verb == "idle":
        idle()
    else:
        keeper()
