"""The first part of the block's program: settle down, lay the agent on disk, hand over to what keeps it running.

The frame (block.sh) unpacks this text and the agent's, joined by a NUL, into the bytes `c`, checks their sum
and runs this part in `python3 -I -c`, as root, with the agent's settings in `sys.argv[1:]`. It ends in another
program, or in an exception that the frame turns into one line of the log.
"""

# What is needed stands in the frame already; the import is for whoever reads or checks this file alone.
import os
import sys

# Nothing of the owner's may be held: a lifecycle script whose output stays open hangs the notebook's start.
for fd in os.listdir("/proc/self/fd"):
    if int(fd) > 2:
        os.closerange(int(fd), int(fd) + 1)
os.setsid()

# Root's alone, all the way up: nobody else can put another program in its place.
root = os.environ.get("NOTEBOOK_SSH_ROOT", "")
home = root + "/opt/notebook-ssh"
agent = home + "/agent.py"
os.makedirs(home, 0o700, True)
with open(agent + "~", "wb") as file:
    file.write(c[c.index(b"\0") + 1 :])  # noqa: F821  (the frame's)
os.replace(agent + "~", agent)

# Where systemd runs it keeps the agent running, in the place of a former one. Elsewhere a loop does, with a
# back-off, until a later loop has written its own number, or the agent ends with 64: no more in this boot.
# EnvironmentFile: proxies are set there, and a unit does not inherit them.
os.execv(
    "/bin/sh",
    [
        "sh",
        "-c",
        """u=notebook-ssh n=1
if [ ! "$0" ] && [ -d /run/systemd/system ]
then
systemctl stop $u
systemd-run --unit=$u --collect -pRestart=always -pRestartSec=9 -pRestartPreventExitStatus=64 \
-pEnvironmentFile=-/etc/environment "$@" && exit
fi
l=$0/opt/$u/loop
echo $$ >"$l"
while
"$@"
[ $? != 64 ]
do
sleep $n
n=$((n<256?n*2:n))
read p <"$l"
[ "$p" = $$ ] || exit
done""",
        root,
        sys.executable,
        "-I",
        agent,
        *("NOTEBOOK_SSH_" + word for word in sys.argv[1:]),
    ],
)
