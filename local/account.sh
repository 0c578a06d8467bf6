# shellcheck shell=bash
# What differs for a person's shell when AWS is on this machine. `make aws` writes a file that sets the variables
# and then holds these functions; docs/deploy.md reads it in. For bash.

# By their places: with their folder in PATH, its python3 would be everybody's.
sam() {
    "$COMMAND_LINES/sam" "$@"
}

# Version 1 of AWS's command line asks the real SQS, whatever AWS_ENDPOINT_URL says; not so with the option.
aws() {
    "$COMMAND_LINES/python" -m awscli --endpoint-url "$AWS_ENDPOINT_URL" "$@"
}

# Addresses of API Gateway lead to this machine, as DNS would.
curl() {
    local word words=()
    for word; do
        if [[ $word =~ ^https://([a-z0-9]+)\.execute-api\.[a-z0-9.-]+/(.+)$ ]]; then
            word="$AWS_ENDPOINT_URL/_aws/execute-api/${BASH_REMATCH[1]}/${BASH_REMATCH[2]}"
        fi
        words+=("$word")
    done
    command curl "${words[@]}"
}

# Whoever runs this plays ec2-user, from a laptop of their own.
ssh() {
    command ssh -F "$LAPTOP/ssh_config" "$@"
}

export -f sam aws curl ssh
