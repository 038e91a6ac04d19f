#!/bin/sh
# A Debian root folder with compilers for another processor. Run in its own mount and process namespaces
# (`unshare --mount --pid --fork --kill-child`), so that no mount outlives it.
#
#   tree.sh new TREE SUITE MIRROR ARCHITECTURE PACKAGES…   apt sources on standard input
#   tree.sh run TREE FOLDER COMMAND…                       in FOLDER; SEEN holds paths, one in a line, which the
#                                                          command sees under the same names
#
# APT_OPTIONS holds the host's own apt transport settings (proxies), one line each.
set -eu
action=$1
tree=$2
shift 2

in_tree() {
    chroot "$tree" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 \
        DEBIAN_FRONTEND=noninteractive "$@"
}

case $action in
new)
    debootstrap --variant=minbase "$1" "$tree" "$2"
    mount -t proc proc "$tree/proc"
    mount -t tmpfs tmpfs "$tree/run"
    printf '%s\n' "${APT_OPTIONS:-}" >"$tree/etc/apt/apt.conf.d/00host"
    cp /etc/resolv.conf /etc/hosts "$tree/etc/"
    cat >"$tree/etc/apt/sources.list"
    in_tree dpkg --add-architecture "$3"
    shift 3
    in_tree apt-get -q update
    in_tree apt-get -q -y install --no-install-recommends "$@"
    # What names the machine that built it, and what no compiler reads.
    rm -rf "$tree/etc/apt/apt.conf.d/00host" "$tree/etc/apt/sources.list" "$tree/etc/resolv.conf" \
        "$tree/etc/hosts" "$tree/debootstrap" "$tree"/var/lib/apt/lists/* "$tree"/var/cache/apt/* \
        "$tree"/usr/share/doc/* "$tree"/usr/share/man/* "$tree"/usr/share/locale/* "$tree"/var/log/*
    ;;
run)
    folder=$1
    shift
    mount -t proc proc "$tree/proc"
    mount -t tmpfs tmpfs "$tree/tmp"
    printf '%s\n' "$SEEN" | while IFS= read -r path; do
        mkdir -p "$tree$path"
        mount --bind "$path" "$tree$path"
    done
    exec chroot "$tree" sh -c 'cd "$1" && shift && exec "$@"' sh "$folder" "$@"
    ;;
*)
    echo "tree.sh: unknown action $action" >&2
    exit 2
    ;;
esac
