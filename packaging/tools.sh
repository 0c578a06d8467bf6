#!/usr/bin/env bash
# Installs what is missing of the programs and libraries named, from the machine's own packages:
#     packaging/tools.sh sshd ssh curl libnss_wrapper.so
# As root with apt it does so itself; otherwise it says in one line what to install.
set -euo pipefail

# The Debian and Ubuntu package of each. Anything else is taken for a package's own name.
package_of() {
    case $1 in
    sshd) echo openssh-server ;;
    ssh | ssh-keygen | scp) echo openssh-client ;;
    ip) echo iproute2 ;;
    nft) echo nftables ;;
    ksh93) echo ksh93u+m ;;
    plink | psftp | puttygen) echo putty-tools ;;
    node) echo nodejs ;;
    libnss_wrapper.so) echo libnss-wrapper ;;
    *) echo "$1" ;;
    esac
}

present() {
    case $1 in
    # What cannot be preloaded, the dynamic linker complains of (ld.so(8), LD_PRELOAD).
    *.so) [ -z "$(LD_PRELOAD=$1 /bin/true 2>&1)" ] ;;
    *) PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null ;;
    esac
}

missing=()
for program in "$@"; do
    present "$program" || missing+=("$(package_of "$program")")
done
[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "tools: please install ${missing[*]} (on Debian and Ubuntu: sudo apt-get install ${missing[*]})" >&2
    exit 1
fi

echo "tools: installing ${missing[*]} ..." >&2
# Packages must not start services here: the local run starts its own sshd, on 127.0.0.1.
# (invoke-rc.d(8): exit status 101 of policy-rc.d forbids it.)
if [ ! -e /usr/sbin/policy-rc.d ]; then
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
    chmod 755 /usr/sbin/policy-rc.d
fi
install() {
    export DEBIAN_FRONTEND=noninteractive
    apt-get update || true # a source that is out of order need not be where these packages are
    # Another apt may be at work, as on a machine that has just been started.
    apt-get --option DPkg::Lock::Timeout=300 install --yes --no-install-recommends "${missing[@]}"
}
if ! said=$(install 2>&1 </dev/null); then
    reason=$(grep -m 1 -E '^[EW]: Failed to fetch' <<<"$said" || grep -m 1 '^E: ' <<<"$said" || tail -n 1 <<<"$said")
    log=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/.build/apt.log
    kept="; all that it said is in $log"
    { mkdir -p "${log%/*}" && echo "$said" >"$log"; } 2>/dev/null || kept=
    echo "tools: apt could not install ${missing[*]}: ${reason#[EW]: }$kept" >&2
    exit 1
fi
