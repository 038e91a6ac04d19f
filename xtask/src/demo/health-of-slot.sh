#!/bin/sh
# Runs the health check that lies in the booted slot's own file system, as that system would.
#
#   health-of-slot.sh DISK CMDLINE chroot|script
#
# chroot: mounts the slot read-only (no journal replay: a booted slot's bytes never change here)
# and runs the check inside it. script: takes only the check out of it, for runs without root.
set -eu
disk=$1
cmdline=$2
kind=$3

slot=$(tr ' ' '\n' <"$cmdline" | sed -n 's/^racklet\.slot=//p')
case $slot in
a) number=1 ;;
b) number=2 ;;
*)
    echo "no booted slot in $cmdline" >&2
    exit 1
    ;;
esac
offset=$(($(cgpt show -i "$number" -b "$disk") * 512))
size=$(($(cgpt show -i "$number" -s "$disk") * 512))
work=$(mktemp -d)
trap 'rm -f "$work/health"; rmdir "$work"' EXIT

if [ "$kind" = chroot ]; then
    unshare --mount sh -eu -c '
        mount -t ext4 -o "loop,ro,noload,offset=$2,sizelimit=$3" "$1" "$4"
        for writable in run var/log var/lib/nginx; do
            mount -t tmpfs tmpfs "$4/$writable"
        done
        chroot "$4" env -i PATH=/usr/sbin:/usr/bin LC_ALL=C.UTF-8 /usr/lib/racklet/health
    ' - "$disk" "$offset" "$size" "$work"
else
    debugfs -R "dump /usr/lib/racklet/health $work/health" "$disk?offset=$offset" 2>/dev/null
    sh "$work/health"
fi
