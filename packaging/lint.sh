#!/usr/bin/env bash
# Every check that runs nothing of the project; quiet about what is well:
#     packaging/lint.sh              all of them, in this order
#     packaging/lint.sh style shell  these alone, as .pre-commit-config.yaml has them run before a commit
# shellcheck disable=SC2329 # functions are called through `check`
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
export PATH=$PWD/.venv/dev/bin:$PATH
export PYTHONPATH=layers/core:functions:client:verify:local
export AWS_DEFAULT_REGION=us-east-1 SAM_CLI_TELEMETRY=0
failed=0

[ -x .venv/dev/bin/ruff ] || {
    echo "lint: the tools are not here yet; run: make environments" >&2
    exit 2
}

check() {
    local name=$1 output began=$SECONDS
    shift
    if output=$("$@" 2>&1); then
        printf '  %-22s ok (%s s)\n' "$name" $((SECONDS - began))
    else
        printf '  %-22s FAILED: %s\n%s\n' "$name" "$*" "$output"
        failed=1
    fi
}

# Whatever git knows or would add, and is there.
files() {
    local file
    git ls-files --cached --others --exclude-standard -z | while IFS= read -r -d '' file; do
        [ ! -f "$file" ] || printf '%s\0' "$file"
    done
}

# Shell scripts by their names or by their first lines.
shell_scripts() {
    local file line
    files | while IFS= read -r -d '' file; do
        line=
        case $file in
        *.sh) ;;
        *.*) continue ;;
        *)
            IFS= read -r line <"$file" 2>/dev/null || true
            case $line in '#!'*/sh | '#!'*/bash | '#!'*'env bash' | '#!'*'env sh') ;; *) continue ;; esac
            ;;
        esac
        printf '%s\0' "$file"
    done
}

lint_shell() {
    shell_scripts | xargs -0 -r shellcheck
}

lint_spelling() {
    files | xargs -0 -r codespell
}

lint_files() {
    files | xargs -0 -r edcfg-lint
}

run() {
    case $1 in
    files) check "files (.editorconfig)" lint_files ;;
    spelling) check "spelling" lint_spelling ;;
    words) check "retired words" python packaging/retired_words.py ;;
    style) check "style" ruff check . ;;
    formatting) check "formatting" ruff format --check . ;;
    types) check "types" mypy ;;
    layers) check "layers" lint-imports ;;
    shell) check "shell" lint_shell ;;
    workflows)
        check "workflows (actionlint)" actionlint
        check "workflows (zizmor)" zizmor --offline --no-progress --quiet .github
        ;;
    template) check "template (cfn-lint)" cfn-lint template.yaml ;;
    sam) check "template (sam)" .venv/sam/bin/sam validate --lint ;;
    checkov) check "template (checkov)" .venv/audit/bin/python -m checkov.main --config-file packaging/checkov.yaml ;;
    weaknesses)
        # Needs a network, which this must not: a check that says something else tomorrow, of the same tree, is no check.
        printf '  %-22s not looked up here: make audit\n' "known weaknesses"
        ;;
    *)
        echo "lint: there is no check named $1; there are ${all[*]}" >&2
        exit 2
        ;;
    esac
}

all=(files spelling words style formatting types layers shell workflows template sam checkov weaknesses)
[ $# -gt 0 ] || set -- "${all[@]}"
# All at the same time, since each keeps one core busy; told in their order.
told=$(mktemp -d)
trap 'rm -rf "$told"' EXIT
running=()
for name in "$@"; do
    (run "$name" && exit "$failed") >"$told/${#running[@]}" &
    running+=($!)
done
for number in "${!running[@]}"; do
    wait "${running[number]}" || failed=$?
    cat "$told/$number"
done
exit "$failed"
