#!/bin/sh
# Verifies on your AWS account which of the facts hold that could not be confirmed. `./verify.sh --help` says how.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
python=$here/.verify/bin/python

fail() {
    printf 'verify: %s\n' "$*" >&2
    exit 2
}

if ! "$python" -c 'import notebook_ssh_client' 2>/dev/null; then
    "${PYTHON:-python3}" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
        fail "needs Python 3.11 or newer as python3; install it, or name one with PYTHON=..."
    echo "Installing the client, which it uses, into $here/.verify ..." >&2
    "${PYTHON:-python3}" -m venv "$here/.verify" || fail "python3 cannot make $here/.verify; install its venv package"
    # Below the folder of this release alone: nothing else is installed, and removing the folder removes all of it.
    "$python" -m pip install --quiet --disable-pip-version-check "$here"/notebook_ssh-*.whl ||
        fail "pip could not install the client; its own message is above"
fi
exec "$python" "$here/verify.pyz" "$@"
