#!/usr/bin/env bash
# deps.sh [PACKAGE...]: installs the Debian packages that tests, the demo and `make
# generate` need, and those named (libdpdk-dev and pkg-config: a peer of the bench),
# and does nothing when all are there. It never starts a service, and waits its turn
# when another process holds dpkg's lock.
set -euo pipefail

packages=(
	make git ca-certificates                        # this Makefile
	gcc libc6-dev                                   # go test -race
	clang llvm libbpf-dev linux-libc-dev            # the XDP program
	protobuf-compiler                               # api/dataplane
	iproute2 iputils-ping ethtool nftables procps   # namespaces, as people set them up
	iperf3 socat tcpdump python3-scapy              # the other side of a test
	"$@"
)

missing=()
for p in "${packages[@]}"; do
	status=$(dpkg-query -W -f '${Status}' "$p" 2>/dev/null || true)
	[[ $status == *"ok installed" ]] || missing+=("$p")
done
[[ ${#missing[@]} -gt 0 ]] || exit 0

if [[ $(id -u) -ne 0 ]]; then
	echo "deps: install as root: apt-get install --no-install-recommends ${missing[*]}" >&2
	exit 1
fi

# One at a time: who made the file below must not remove it under another's feet.
exec 9>/run/lock/margay-deps.lock
flock 9

# A package's script asks this file whether it may start its service.
policy=/usr/sbin/policy-rc.d
if [[ ! -e $policy ]]; then
	trap 'rm -f "$policy"' EXIT
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod +x "$policy"
fi

export DEBIAN_FRONTEND=noninteractive
apt() { apt-get -q -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 "$@" </dev/null; }

echo "deps: installing ${missing[*]}"
# Lists of a fresh image are absent, those of an old one name packages that are gone.
if [[ -z $(find /var/lib/apt/lists -maxdepth 1 -name '*Packages*' -mtime -1 -print -quit 2>/dev/null) ]]; then
	apt update >/dev/null
fi
log=$(mktemp)
if ! apt install -y --no-install-recommends "${missing[@]}" >"$log" 2>&1; then
	tail -n 30 "$log" >&2
	echo "deps: apt-get could not install ${missing[*]}: see above" >&2
	exit 1
fi
rm -f "$log"
