#!/usr/bin/env bash
# testpmd.sh DIR: puts DPDK's testpmd into the new folder DIR, with all it needs to
# run as a peer of margay-bench on another machine, which has none of it: loader,
# libraries, the drivers for AF_XDP, the XDP programs of libxdp. There,
# PATH=DIR:$PATH is all. It takes x86-64 or what this machine is, Linux, and /bin/sh.
set -euo pipefail
shopt -s nullglob

fail() { echo "testpmd: $*" >&2; exit 1; }

[[ $# -eq 1 && ! -e $1 ]] || fail "want one folder that is not there yet"
dir=$1
program=$(command -v dpdk-testpmd) || fail "dpdk-testpmd is not installed: apt-get install --no-install-recommends dpdk-dev"
[[ $(head -c 4 "$program") == $'\x7fELF' ]] || fail "$program is no program of this system's"
mkdir -p "$dir/lib" "$dir/bpf"
cp -L "$program" "$dir/lib/dpdk-testpmd"

# A driver that the program links as well is one file, or it would be loaded twice.
drivers=()
for name in librte_bus_vdev librte_mempool_ring librte_net_af_xdp; do
	found=(/usr/lib/*/dpdk/pmds-*/"$name".so)
	[[ ${#found[@]} -eq 1 ]] || fail "of driver $name there are ${#found[@]}, want one"
	soname=$(objdump -p "${found[0]}" | awk '$1 == "SONAME" {print $2}')
	cp -L "${found[0]}" "$dir/lib/$soname"
	drivers+=("$soname")
done
ldd "$dir"/lib/* | awk '$2 == "=>" && $3 ~ /^\// {print $3} $1 ~ /^\// && $2 ~ /^\(/ {print $1}' | sort -u |
	while read -r file; do cp -L -n "$file" "$dir/lib/"; done
strip --strip-unneeded "$dir"/lib/*
# DPDK loads all of a folder too, which it knows by a path of the same length.
LC_ALL=C sed -i 's|/usr/lib\(/[^/]*/dpdk/pmds-\)|/nowhere\1|' "$dir"/lib/librte_eal.so.*
objects=(/usr/lib/*/bpf/{xsk_def_xdp_prog*,xdp-dispatcher}.o)
[[ ${#objects[@]} -gt 0 ]] || fail "libxdp's programs are not in /usr/lib/*/bpf"
cp -L "${objects[@]}" "$dir/bpf/"
loader=("$dir"/lib/ld-linux*)
[[ ${#loader[@]} -eq 1 ]] || fail "of loaders there are ${#loader[@]}, want one"

{
	cat <<'END'
#!/bin/sh
# DPDK's testpmd with what is beside it, and nothing of the machine's.
here=$(cd "${0%/*}" && pwd) || exit
export LIBXDP_OBJECT_PATH="$here/bpf"
END
	# shellcheck disable=SC2016 # $here is the script's
	printf 'exec "$here/lib/%s" --inhibit-cache --library-path "$here/lib" --argv0 dpdk-testpmd "$here/lib/dpdk-testpmd"' "${loader[0]##*/}"
	for d in "${drivers[@]}"; do
		printf ' \\\n\t-d "$here/lib/%s"' "$d"
	done
	# shellcheck disable=SC2016
	printf ' "$@"\n'
} >"$dir/dpdk-testpmd"
chmod +x "$dir/dpdk-testpmd" "$dir"/lib/{dpdk-testpmd,ld-linux*}
du -sh "$dir"
