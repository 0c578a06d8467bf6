#!/bin/bash
# On-start script of a notebook of a verification run: prints what it finds, a line each (probe.py), and never a secret.
# Of what it does, the public key by which the run logs in stays, and nothing else. It ends within 90 seconds, with 0.
R=${NOTEBOOK_SSH_ROOT:-} UNIT=@PREFIX@ KEY='@PUBLIC_KEY@'

say() {
    local value=${3//[$'\r\n']/ }
    printf 'nbssh-verify %s %s=%s\n' "$1" "$2" "${value:0:200}"
}

# A program of the notebook, by its path.
program() {
    local folder
    for folder in usr/sbin usr/bin sbin bin; do
        [ ! -x "$R/$folder/$1" ] || { printf %s "$R/$folder/$1" && return; }
    done
    return 1
}

# limit SECONDS COMMAND…: all of them together end in time.
limit() {
    local left=$((70 - SECONDS))
    ((left > 0)) || return 124
    timeout -k 1 "$((left < $1 ? left : $1))" "${@:2}"
}

banner() {
    (exec 3<>"/dev/tcp/127.0.0.1/$1" && IFS= read -r -t 3 line <&3 && printf %s "${line%$'\r'}") 2>/dev/null
}

admit() {
    local folder=$R/home/ec2-user/SageMaker/ssh file
    [ -n "$KEY" ] || return
    file=$folder/authorized_keys
    mkdir -p "$folder"
    [[ -f $file && $(<"$file") == *"$KEY"* ]] || printf '%s\n' "$KEY" >>"$file"
    chown ec2-user: "$folder" "$file"
}

probe_sshd() {
    local control text tries=0
    # The block of the stack may be in this script, whose agent starts an sshd that does not run. (A script with the
    # name that this looks for would count as one with a block.)
    if [[ $(<"$0") == *$'\n# >>> notebook'[-]'ssh '* ]]; then say sshd-runs agent yes; else say sshd-runs agent no; fi
    if program sshd >/dev/null; then say sshd-runs installed yes; else say sshd-runs installed no; fi
    if control=$(program systemctl); then
        while [ "$(limit 5 "$control" is-active sshd)" = activating ] && ((tries++ < 10)); do sleep 1; done
        say sshd-runs active "$(limit 5 "$control" is-active sshd)"
        say sshd-runs enabled "$(limit 5 "$control" is-enabled sshd)"
    fi
    text=$(banner "${NOTEBOOK_SSH_PORT:-22}")
    say sshd-runs banner "$text"
}

probe_systemd() {
    local control file=$R/etc/systemd/system/$UNIT.service
    control=$(program systemctl) || { say systemd-on-start systemctl no && return; }
    say systemd-on-start systemctl yes
    printf '[Service]\nExecStart=/bin/sleep 60\n' >"$file"
    limit 10 "$control" daemon-reload
    limit 15 "$control" start "$UNIT"
    say systemd-on-start status $?
    say systemd-on-start active "$(limit 5 "$control" is-active "$UNIT")"
    timeout 5 "$control" stop "$UNIT"
    rm -f "$file"
    timeout 5 "$control" daemon-reload
}

probe_selinux() {
    local folder=$R/etc/ssh/$UNIT port=0 server runner child='' tries=0 mode listens=no text=
    mode=$(program getenforce) && mode=$(limit 5 "$mode")
    say selinux-port mode "${mode:-none}"
    server=$(program sshd) || return
    # A port that the agent would choose, of those for outgoing connections, and on which nothing listens.
    while ((port == 0)) || banner "$port" || (exec 3<>"/dev/tcp/127.0.0.1/$port"); do port=$((32768 + RANDOM % 28000)); done
    mkdir -p "$folder"
    limit 10 ssh-keygen -q -t ecdsa -N '' -f "$folder/key"
    printf 'Port %s\nListenAddress 127.0.0.1\nHostKey "%s"\nPidFile none\n' "$port" "$folder/key" >"$folder/config"
    limit 5 "$server" -t -f "$folder/config"
    say selinux-port valid $?
    # As a unit, it runs as what systemd makes of it: a script's own child may be allowed more.
    if ! { runner=$(program systemd-run) && limit 10 "$runner" -q --collect --unit="$UNIT-sshd" \
        "-pStandardError=file:$folder/log" "$server" -D -e -f "$folder/config"; }; then
        "$server" -D -e -f "$folder/config" </dev/null >"$folder/log" 2>&1 &
        child=$!
    fi
    while ((tries++ < 10)); do
        [[ $(banner "$port") == SSH-* ]] && listens=yes && break
        [ -z "$child" ] || kill -0 "$child" || break
        sleep 0.3
    done
    [ ! -s "$folder/log" ] || text=$(<"$folder/log")
    say selinux-port listens "$listens"
    [ "$listens" = yes ] || say selinux-port error "${text//"$folder"/}"
    if [ -n "$child" ]; then kill "$child"; else timeout 5 "$(program systemctl)" stop "$UNIT-sshd"; fi
    rm -rf "$folder"
}

# Whose credentials the first role's are: STS names who signed. Secrets pass through pipes, where ps(1) shows none.
probe_role() {
    local base=${AWS_EC2_METADATA_SERVICE_ENDPOINT:-http://169.254.169.254} token roles keys arn url sent answer
    base=${base%/}/latest
    token=$(limit 9 curl -sf --noproxy '*' -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' "$base/api/token")
    metadata() {
        printf 'header="X-aws-ec2-metadata-token: %s"\n' "$token" |
            limit 9 curl -sf --noproxy '*' -K - "$base/meta-data/iam/security-credentials/$1"
    }
    roles=$(metadata '')
    say imds-role listed "${roles%%$'\n'*}"
    keys=$(metadata "${roles%%$'\n'*}")
    arn=$(<"$R/opt/ml/metadata/resource-metadata.json")
    [[ $arn =~ arn:([^:]+):sagemaker:([^:]+): ]] || return
    url=https://sts.${BASH_REMATCH[2]}.amazonaws.com
    [ "${BASH_REMATCH[1]}" != aws-cn ] || url=$url.cn
    sent=$(
        [[ $keys =~ \"AccessKeyId\"\ *:\ *\"([^\"]+) ]] && printf 'user="%s:' "${BASH_REMATCH[1]}"
        [[ $keys =~ \"SecretAccessKey\"\ *:\ *\"([^\"]+) ]] && printf '%s"\n' "${BASH_REMATCH[1]}"
        [[ $keys =~ \"Token\"\ *:\ *\"([^\"]+) ]] && printf 'header="x-amz-security-token: %s"\n' "${BASH_REMATCH[1]}"
    )
    answer=$(printf %s "$sent" | limit 9 curl -sS -K - --aws-sigv4 "aws:amz:${BASH_REMATCH[2]}:sts" \
        -d 'Action=GetCallerIdentity&Version=2011-06-15' "${AWS_ENDPOINT_URL:-$url}/" 2>&1)
    if [[ $answer =~ :assumed-role/([^/\<]+)/ ]]; then
        say imds-role owner "${BASH_REMATCH[1]}"
    elif [[ $answer =~ \<Code\>([A-Za-z]+)\<|^curl:[^:]+ ]]; then
        say imds-role error "${BASH_REMATCH[1]:-${BASH_REMATCH[0]}}"
    fi
}

{
    admit
    probe_sshd
    probe_systemd
    probe_selinux
    probe_role
} </dev/null 2>/dev/null
say end 'done' yes
exit 0
