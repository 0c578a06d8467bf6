#!/usr/bin/env bash
# Looks up known weaknesses of the packages that are pinned:
#     packaging/audit.sh [FILE...]                 all of requirements/, as PyPI tells; needs a network
#     OSV=http://host/v1/query packaging/audit.sh  as a copy of https://osv.dev tells, where there is none
# Exit status 0 when none is known.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
[ $# -gt 0 ] || set -- requirements/*.txt
source=(--vulnerability-service pypi)
[ -z "${OSV:-}" ] || source=(--vulnerability-service osv --osv-url "$OSV")
failed=0
for file in "$@"; do
    echo "$file"
    # Nothing is installed or resolved: the files name every package, its version and its hash.
    .venv/audit/bin/pip-audit "${source[@]}" --disable-pip --require-hashes --strict --progress-spinner off \
        --requirement "$file" || failed=1
done
exit $failed
