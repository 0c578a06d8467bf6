"""The worker: does on the notebook what its tags request. Tunnel, keys, commands, and the texts for the user.

The stack joins these modules into one program, worker.py (loader.py), and sends it with its reply; the agent compares it
with the SHA-256 in the block and runs it (agent.py, docs/notebook.md). Everything here runs as the owner of
/home/ec2-user, so that whatever a path there may be, nothing is reached that this user could not reach anyway; only
root.py runs as root, and it touches nothing but root's own paths.

Standard library only, Python 3.9 or later. agent.py is in the same directory.
"""
