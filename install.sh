#!/bin/sh
# Installs the periscope binary of a release, after its checksum was compared.
#
#   install.sh [--version VERSION] [--from URL|FOLDER] [--to FOLDER]
#
# --from     where the archives and SHA256SUMS lie; https only, or a folder of this machine
# --to       where the binary goes (default: /usr/local/bin for root, else ~/.local/bin)
# Nothing else is changed; `periscope service install` makes a service of it.
set -eu

# The release workflow writes version and address into the copy that it publishes.
version=@VERSION@
from=@RELEASES@
to=

fail() { echo "install.sh: $1" >&2; exit 1; }

main() {
    while [ $# -gt 0 ]; do
        [ $# -ge 2 ] || fail "$1 needs a value, or is not known; see the head of this file"
        case "$1" in
            --version) version=$2 ;;
            --from) from=$2 ;;
            --to) to=$2 ;;
            *) fail "$1 is not known; see the head of this file" ;;
        esac
        shift 2
    done
    case "$version" in '' | @* | *[!0-9A-Za-z.+-]*) fail "name a version: --version 0.1.0" ;; esac
    [ "$(uname -s)" = Linux ] || fail "periscope runs on Linux only"
    case "$(uname -m)" in
        x86_64 | amd64) target=x86_64-unknown-linux-musl ;;
        aarch64 | arm64) target=aarch64-unknown-linux-musl ;;
        *) fail "there is no binary for $(uname -m): build it with cargo build --release" ;;
    esac
    if [ -z "$to" ]; then
        if [ "$(id -u)" -eq 0 ]; then to=/usr/local/bin; else to=$HOME/.local/bin; fi
    fi
    archive=periscope-$version-$target.tar.gz
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    trap 'exit 130' INT TERM
    get SHA256SUMS
    get "$archive"
    verify
    tar -xzf "$work/$archive" -C "$work" "periscope-$version-$target/periscope" \
        || fail "$archive cannot be unpacked"
    new=$work/periscope-$version-$target/periscope
    { [ -f "$new" ] && [ ! -L "$new" ]; } || fail "$archive holds no program"
    mkdir -p "$to" || fail "make $to, or name another folder with --to"
    # Beside its place and then renamed: a running periscope keeps its file, and there is never half of one.
    install -m 0755 "$new" "$to/.periscope.new" || fail "$to cannot be written: name another folder with --to"
    mv -f "$to/.periscope.new" "$to/periscope"
    echo "installed $("$to/periscope" --version) as $to/periscope"
    case ":$PATH:" in *":$to:"*) ;; *) echo "$to is not in PATH: add it" ;; esac
    echo "next: periscope up, or as a service: sudo $to/periscope service install"
}

get() {
    case "$from" in
        https://*)
            command -v curl >/dev/null || fail "curl is missing: apt-get install curl"
            curl --proto '=https' --tlsv1.2 --fail --silent --show-error --location \
                --retry 3 --max-time 300 --output "$work/$1" "$from/$1" || fail "get $from/$1"
            ;;
        http://*) fail "$from is not https" ;;
        '' | @*) fail "name where the release lies: --from URL or a folder" ;;
        *) cp "$from/$1" "$work/$1" || fail "there is no $1 in $from" ;;
    esac
}

verify() {
    wanted=$(awk -v name="$archive" '$2 == name || $2 == "*" name { print $1 }' "$work/SHA256SUMS")
    [ "$(printf %s "$wanted" | wc -c)" -eq 64 ] || fail "SHA256SUMS does not name $archive once"
    found=$(sha256sum "$work/$archive" | cut -d ' ' -f 1)
    [ "$found" = "$wanted" ] || fail "$archive has the checksum $found instead of $wanted: nothing was installed"
}

main "$@"
