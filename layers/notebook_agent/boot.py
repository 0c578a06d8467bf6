"""Installs the agent and hands over to the process that keeps it running: the first part of the block's program.

The frame (block.sh) unpacks this source and the agent's, joined by a NUL, into the bytes `c`, verifies their checksum
and runs this part in `python3 -I -c`, as root, with the agent's settings in `sys.argv[1:]`. It ends in another program,
or in an exception, of which the frame writes one line to the log.
"""

# Both are imported by the frame already; the imports are for tools that read this file alone.
import os
import sys

# No file descriptor of the script owner's may stay open: the notebook's start hangs while a lifecycle script's output
# is open.
os.closerange(3, max(map(int, os.listdir("/proc/self/fd"))) + 1)
os.setsid()

# Every directory down to the agent belongs to root, so no other user can replace the program.
root = os.environ.get("NOTEBOOK_SSH_ROOT", "")
home = root + "/opt/notebook-ssh"
agent = home + "/agent.py"
os.makedirs(home, 0o700, True)
with open(agent + "~", "wb") as file:
    file.write(c[c.index(b"\0") + 1 :])  # type: ignore[name-defined]  # noqa: F821  (defined by the frame)
os.replace(agent + "~", agent)

# Where systemd runs, it restarts the agent: as a unit on disk, which survives a reboot and is gone with the root volume at
# the instance's next start. Elsewhere a loop does, with a back-off, until a later loop has written its own process id or
# the agent exits with 64: not again in this boot.
command = [sys.executable, "-I", agent, *("NOTEBOOK_SSH_" + word for word in sys.argv[1:])]
os.execv(
    "/bin/sh",
    [
        "sh",
        "-c",
        """u=notebook-ssh n=1
t=$1
shift
if [ ! "$0" ] && [ -d /run/systemd/system ]
then
printf %s "$t">/etc/systemd/system/$u.service && systemctl daemon-reload && systemctl enable $u && systemctl restart $u && exit
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
        # systemd.service(5), COMMAND LINES: quoted words, in which % stands for a specifier. No setting has a $, a " or a \\.
        """[Service]
Restart=always
RestartSec=9
RestartPreventExitStatus=64
ExecStart="{}"
[Install]
WantedBy=multi-user.target
""".format('" "'.join(command).replace("%", "%%")),
        *command,
    ],
)
