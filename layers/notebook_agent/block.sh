# shellcheck shell=sh
# The frame of the block: shell text inserted at the top of a script owner's on-start script (docs/block.md).
#
# Any POSIX shell with any options may run it. It must return at once with status 0 and change nothing in the owner's
# shell. So everything runs in a subshell, and everything that takes time in a background child of that subshell, which
# becomes the leader of a session of its own and holds no file descriptor of the owner's (boot.py). The subshell is the
# left side of a pipeline, which every shell runs in a process of its own. ksh93 runs other subshells in the shell
# itself: the background child would belong to the owner's shell, and the owner's `wait` would wait for the agent.
#
# Root runs no interpreter that other users can write to, and everything below /home/ec2-user is ec2-user's: only the
# system's Python is safe (docs/block.md, "Which Python").
#
# rules/block.py drops these comments and substitutes the words between @ signs. The settings are words such as
# REGION=eu-west-1; boot.py passes them on as arguments, NOTEBOOK_SSH_REGION=eu-west-1.
( ( (
set +eu
cd /
umask 022
export PATH="$PATH:/usr/bin:/bin"
r=$NOTEBOOK_SSH_ROOT p=${NOTEBOOK_SSH_PYTHON:-/usr/bin/python3}
l=$r/var/log/notebook-ssh.log
mkdir -p "${l%/*}"
# `true`, because a failing redirection of a special builtin such as `:` ends the shell.
true >>"$l" || l=/dev/null
export P='@payload@'
exec "$p" -I -c 'import os,sys,base64,hashlib,lzma
try:
 c=lzma.decompress(base64.b85decode(os.environ.pop("P")))
 if hashlib.sha256(c).hexdigest()[:16]!="@sum@":raise ValueError("damaged block")
 exec(c[:c.index(0)])
except Exception as e:sys.exit("notebook-ssh: not started: %r"%e)
' @arguments@ >>"$l" 2>&1
) & ) | : ) <>/dev/null >&0 2>&0 || :
