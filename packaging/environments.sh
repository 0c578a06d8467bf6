#!/usr/bin/env bash
# Makes the virtual environments named, each from requirements/NAME.txt, and only when something changed since:
#     packaging/environments.sh dev emulator sam aws audit release recipes
#     packaging/environments.sh compute node awscli2     # what the nightly tests need besides
#     PYTHON39=python3.9 packaging/environments.sh client
# `node` has packages of npm, from requirements/node/package-lock.json. Exact versions, each with its hash; nothing outside
# this folder is touched but what apt installs (tools.sh).
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

# The oldest Python that the client and the agent run on, for the environment `client`.
find_python39() {
    local candidate=${PYTHON39:-python3.9}
    "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 9))' 2>/dev/null ||
        fail "needs Python 3.9 as python3.9; install it, or name one with PYTHON39=..."
    command -v "$candidate"
}

# Debian splits venv and pip off its python3.
need_venv() {
    "$1" -c 'import ensurepip, venv' 2>/dev/null && return
    packaging/tools.sh python3-venv
    "$1" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "$1 cannot make virtual environments; install the venv package of that Python"
}

# In one sentence, why a program failed: by what it said, or by its exit status.
reason() {
    case $1 in
    "") echo "it ended with status $2, and said nothing" ;;
    *"No space left on device"* | *"Disk quota exceeded"*)
        echo "there is no space left on the disk, for $PWD/.venv or for temporary files in ${TMPDIR:-/tmp}"
        ;;
    *) grep -m 1 -E '^(ERROR|E|[A-Za-z.]*Error):' <<<"$1" || tail -n 1 <<<"$1" ;;
    esac
}

making=
trap '[ -z "$making" ] || rm -rf "$making"' EXIT # half an environment helps nobody, least of all on a full disk

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
    making=$folder
    local said
    said=$("$python" -m venv "$folder" 2>&1) || fail "could not make $folder: $(reason "$said" $?)"
    # pip's temporary files go with the folder, also when pip is interrupted.
    mkdir "$folder/tmp"
    local pip=(env "TMPDIR=$PWD/$folder/tmp" "$folder/bin/python" -m pip --disable-pip-version-check --quiet)
    # Nothing may choose a version by itself: the file is complete, and pip check proves it.
    said=$("${pip[@]}" install --no-deps --require-hashes --requirement "$requirements" 2>&1) ||
        fail "could not install $requirements: $(reason "$said" $?)"
    said=$("${pip[@]}" check 2>&1) ||
        fail "$requirements is not complete; make it again from requirements/$name.in: $(reason "$said" $?)"
    rm -rf "$folder/tmp"
    said=$({ echo "$stamp" >"$folder/.stamp"; } 2>&1) || fail "could not finish $folder: $(reason "$said" $?)"
    making=
}

# Packages of npm. The lock file has a hash of each and no address: npm's own settings name the registry.
make_node_environment() {
    local folder=.venv/node requirements=requirements/node said
    command -v npm >/dev/null || fail "needs npm; run: packaging/tools.sh node npm"
    local stamp
    stamp="$(cat $requirements/*.json | sha256sum) $(node --version)"
    [ "$(cat "$folder/.stamp" 2>/dev/null)" = "$stamp" ] && return
    echo "environments: making $folder ($(grep -c '"integrity"' $requirements/package-lock.json) packages) ..." >&2
    rm -rf "$folder"
    making=$folder
    said=$({ mkdir "$folder" && cp $requirements/*.json "$folder"; } 2>&1) || fail "could not make $folder: $(reason "$said" $?)"
    # No package's own program is run: the optional ones, which compile something, are left out.
    said=$(npm ci --prefix "$folder" --ignore-scripts --omit=optional --no-audit --no-fund 2>&1) ||
        fail "could not install $requirements: $(reason "$said" $?)"
    echo "$stamp" >"$folder/.stamp"
    making=
}

# Version 2 of AWS's command line: a program, which needs no Python.
make_awscli2_environment() {
    local folder=.venv/awscli2 requirements=requirements/awscli2.txt stamp said
    stamp=$(cat $requirements packaging/unpack_awscli.py | sha256sum)
    [ "$(cat "$folder/.stamp" 2>/dev/null)" = "$stamp" ] && return
    need_venv "$python"
    echo "environments: making $folder (AWS's command line, version 2) ..." >&2
    rm -rf "$folder"
    making=$folder
    said=$({ mkdir "$folder" && "$python" -m venv "$folder/tmp"; } 2>&1) || fail "could not make $folder: $(reason "$said" $?)"
    said=$(TMPDIR="$PWD/$folder/tmp" "$folder/tmp/bin/python" -m pip --disable-pip-version-check --quiet download --no-deps \
        --require-hashes --requirement "$requirements" --dest "$folder/tmp" 2>&1) ||
        fail "could not download $requirements: $(reason "$said" $?)"
    said=$("$python" packaging/unpack_awscli.py "$folder"/tmp/*.whl "$folder" 2>&1) ||
        fail "could not unpack $requirements: $(reason "$said" $?)"
    rm -rf "$folder/tmp"
    echo "$stamp" >"$folder/.stamp"
    making=
}

[ $# -gt 0 ] || fail "name the environments: dev, emulator, sam, aws, audit, release, recipes, compute, node, awscli2, client"
if ! said=$({ mkdir -p .venv && : >.venv/.lock; } 2>&1); then
    case $said in *"No space left"*) fail "$(reason "$said" 1)" ;; esac
    fail "cannot write into this folder, $PWD; clone the project into a folder of your own"
fi
exec 9>.venv/.lock
flock 9 # two runs side by side make it once
python=$(find_python)
for name in "$@"; do
    case $name in
    client)
        oldest=$(find_python39)
        make_environment "$name" "$oldest"
        ;;
    node) make_node_environment ;;
    awscli2) make_awscli2_environment ;;
    *) make_environment "$name" "$python" ;;
    esac
done
