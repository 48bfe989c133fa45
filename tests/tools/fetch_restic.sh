#!/usr/bin/env bash
# Fetch the restic of Debian 13 (trixie) beside the system's own, for tests: unpacked into .cache/tools/restic-trixie.
#
# The archive's address is taken from this host's own Debian sources, and nothing of the host's apt is changed: lists,
# cache and sources of this run live in a directory of its own. Prints the program's path; exits 1 with one line if it cannot.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
target=$root/.cache/tools/restic-trixie
program=$target/usr/bin/restic

fail() {
    echo "fetch_restic: $1" >&2
    exit 1
}

if [ -x "$program" ]; then
    echo "$program"
    exit 0
fi
command -v apt-get > /dev/null || fail "no apt-get here; set VCBPROXY_RESTIC to a restic of your own"
command -v dpkg-deb > /dev/null || fail "no dpkg-deb here; set VCBPROXY_RESTIC to a restic of your own"

# The first mirror that serves Debian itself: not a security, updates or third-party one.
uris() {
    cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2> /dev/null |
        awk '$1 == "deb" { for (i = 2; i <= NF; i++) if ($i ~ /^https?:/) print $i }'
    cat /etc/apt/sources.list.d/*.sources 2> /dev/null |
        awk 'tolower($1) == "uris:" { for (i = 2; i <= NF; i++) print $i }'
}
uri=$({ uris || true; } | sed 's:/*$::' | grep -m 1 '/debian$' || true)
[ -n "$uri" ] || fail "found no Debian mirror in this host's apt sources"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/{lists/partial,cache/archives/partial,empty}
echo "deb $uri trixie main" > "$work/sources.list"
options=(
    -o "Dir::Etc::sourcelist=$work/sources.list"
    -o "Dir::Etc::sourceparts=$work/empty"
    -o "Dir::State::lists=$work/lists"
    -o "Dir::Cache=$work/cache"
    -o "APT::Sandbox::User=root"
    -o "Acquire::Retries=2"
)
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -r "$keyring" ] && sed -i "s|^deb |deb [signed-by=$keyring] |" "$work/sources.list"

apt-get "${options[@]}" -qq update > "$work/log" 2>&1 || fail "apt-get update: $(tail -n 1 "$work/log")"
(cd "$work" && apt-get "${options[@]}" -qq download restic/trixie > "$work/log" 2>&1) ||
    fail "apt-get download: $(tail -n 1 "$work/log")"
mkdir -p "$target"
dpkg-deb -x "$work"/restic_*.deb "$target" || fail "cannot unpack the package"
"$program" version > /dev/null 2>&1 || fail "the package's restic does not run here"
echo "$program"
