#!/bin/sh
# Makes or upgrades a Debian root file system. Run in its own mount and process namespaces
# (`unshare --mount --pid --fork --kill-child`), so that no mount and no daemon outlives it.
#
#   tree.sh new     TREE SUITE MIRROR PACKAGES
#   tree.sh upgrade TREE            apt sources on standard input
#   tree.sh image   TREE EPOCH FILE MKE2FS-ARGUMENTS…
#
# APT_OPTIONS holds the host's own apt transport settings (proxies), one line each. ARCHITECTURE names another one than
# this machine's, whose programs the kernel must be able to start.
set -eu
action=$1
tree=$2
shift 2

# Reading a tree must not change it: access times would end up in the image.
mkdir -p "$tree"
mount --bind "$tree" "$tree"
mount -o remount,bind,noatime "$tree"

in_tree() {
    chroot "$tree" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 \
        DEBIAN_FRONTEND=noninteractive SYSTEMD_OFFLINE=1 "$@"
}

# What must be there while packages are configured, and must not be there afterwards.
enter() {
    mount -t proc proc "$tree/proc"
    mount -t tmpfs tmpfs "$tree/run"
    printf '#!/bin/sh\nexit 101\n' >"$tree/usr/sbin/policy-rc.d" # no daemon is started
    chmod 755 "$tree/usr/sbin/policy-rc.d"
    printf '%s\n' "${APT_OPTIONS:-}" >"$tree/etc/apt/apt.conf.d/00host"
    cp /etc/resolv.conf /etc/hosts "$tree/etc/"
}

# What a fresh installation would not have, or what names the machine that built it.
clean() {
    rm -f "$tree/usr/sbin/policy-rc.d" "$tree/etc/apt/apt.conf.d/00host" \
        "$tree/etc/apt/sources.list" "$tree/etc/resolv.conf" "$tree/etc/hosts" \
        "$tree"/etc/ssh/ssh_host_*_key* "$tree"/etc/*- "$tree"/var/cache/ldconfig/aux-cache \
        "$tree"/var/lib/systemd/random-seed "$tree"/boot/*.old "$tree"/*.old
    rm -rf "$tree"/var/lib/apt/lists "$tree"/var/cache/apt "$tree"/var/cache/debconf/*-old \
        "$tree"/var/lib/dpkg/*-old "$tree"/debootstrap
    find "$tree/var/log" "$tree/tmp" "$tree/var/tmp" -xdev -type f -delete
    find "$tree/usr" -xdev -name __pycache__ -type d -prune -exec rm -rf {} +
    mkdir -p "$tree/var/lib/apt/lists/partial" "$tree/var/cache/apt/archives/partial"
    : >"$tree/etc/machine-id" # empty: made at the first boot
    echo racklet >"$tree/etc/hostname"
}

case $action in
new)
    # The mirror's `main` alone, without updates or security: an installation that has aged.
    debootstrap --variant=minbase ${ARCHITECTURE:+--arch="$ARCHITECTURE"} --include="$3" "$1" "$tree" "$2"
    mount -t proc proc "$tree/proc"
    clean
    ;;
upgrade)
    enter
    cat >"$tree/etc/apt/sources.list"
    in_tree apt-get -q update
    in_tree apt-get -q -y -o Dpkg::Options::=--force-confold upgrade --with-new-pkgs
    # Only the kernel that the meta package asks for stays.
    kernel=$(in_tree dpkg-query -Wf '${Depends}' 'linux-image-cloud-*' | sed 's/ .*//')
    for old in $(in_tree dpkg-query -Wf '${Package}\n' 'linux-image-[0-9]*'); do
        [ "$old" = "$kernel" ] || in_tree apt-get -q -y purge "$old"
    done
    in_tree apt-get -q -y autoremove --purge
    in_tree dpkg --audit
    umount "$tree/run"
    clean
    ;;
image)
    epoch=$1
    file=$2
    shift 2
    find "$tree" -xdev -newermt "@$epoch" -exec touch --no-dereference --date="@$epoch" {} +
    E2FSPROGS_FAKE_TIME=$epoch mke2fs -q -t ext4 -d "$tree" "$@" "$file" 1G
    e2fsck -f -n "$file" >&2
    ;;
*)
    echo "tree.sh: unknown action $action" >&2
    exit 2
    ;;
esac
