#!/usr/bin/env bash
# Every check that runs nothing: style, types, layers, shell, template. Quiet about what is well.
# shellcheck disable=SC2329 # functions are called through `check`
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
export PATH=$PWD/.venv/dev/bin:$PATH
export PYTHONPATH=layers/core:functions:client:local
export AWS_DEFAULT_REGION=us-east-1 SAM_CLI_TELEMETRY=0
failed=0

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

# Shell scripts by their names or by their first lines, of whatever git knows or would add.
shell_scripts() {
    local file line
    git ls-files --cached --others --exclude-standard -z | while IFS= read -r -d '' file; do
        [ -f "$file" ] || continue
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

check "style" ruff check .
check "formatting" ruff format --check .
check "types" mypy
check "layers" lint-imports
check "shell" lint_shell
check "template (cfn-lint)" cfn-lint template.yaml
check "template (sam)" .venv/sam/bin/sam validate --lint
check "template (checkov)" .venv/audit/bin/python -m checkov.main --config-file packaging/checkov.yaml
# Needs a network, which this must not: a check that says something else tomorrow, of the same tree, is no check.
printf '  %-22s not looked up here: make audit\n' "known weaknesses"
exit $failed
