#!/usr/bin/env bash
# Makes the virtual environments named, each from requirements/NAME.txt, and only when something changed since:
#     packaging/environments.sh dev emulator sam aws audit
# Exact versions, each with its hash; nothing outside this folder is touched but what apt installs (tools.sh).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
    echo "environments: $*" >&2
    exit 1
}

# The first Python that is new enough. PYTHON=... chooses another.
find_python() {
    local candidate
    for candidate in ${PYTHON:+"$PYTHON"} python3 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    fail "needs Python 3.11 or newer as python3; install it, or name one with PYTHON=..."
}

# Debian splits venv and pip off its python3.
need_venv() {
    "$1" -c 'import ensurepip, venv' 2>/dev/null && return
    packaging/tools.sh python3-venv
    "$1" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "$1 cannot make virtual environments; install the venv package of that Python"
}

make_environment() {
    local name=$1 python=$2
    local folder=.venv/$name requirements=requirements/$name.txt
    [ -f "$requirements" ] || fail "there is no $requirements"
    # A virtual environment holds its own path and its Python's, so a moved folder needs a new one.
    local stamp
    stamp="$(sha256sum <"$requirements") $PWD $("$python" -c 'import sys; print(sys.version_info[:3], sys._base_executable)')"
    [ "$(cat "$folder/.stamp" 2>/dev/null)" = "$stamp" ] && return
    need_venv "$python"
    echo "environments: making .venv/$name ($(grep -c '==' "$requirements") packages) ..." >&2
    rm -rf "$folder"
    "$python" -m venv "$folder"
    # pip's temporary files go with the folder, also when pip is interrupted.
    mkdir "$folder/tmp"
    local pip=(env "TMPDIR=$PWD/$folder/tmp" "$folder/bin/python" -m pip --disable-pip-version-check --quiet)
    # Nothing may choose a version by itself: the file is complete, and pip check proves it.
    "${pip[@]}" install --no-deps --require-hashes --requirement "$requirements" ||
        fail "could not install $requirements; pip's own message is above"
    "${pip[@]}" check || fail "$requirements is not complete; make it anew from requirements/$name.in"
    rm -rf "$folder/tmp"
    echo "$stamp" >"$folder/.stamp"
}

[ $# -gt 0 ] || fail "name the environments: dev, emulator, sam, aws, audit"
{ mkdir -p .venv && [ -w .venv ]; } 2>/dev/null ||
    fail "cannot write into this folder, $PWD; clone the project into a folder of your own"
exec 9>.venv/.lock
flock 9 # two runs side by side make it once
python=$(find_python)
for name in "$@"; do
    make_environment "$name" "$python"
done
