#!/bin/sh
# Makes the initrd of a slot that the chooser boots: make-slot-initramfs.sh AGENT KERNEL-RELEASE OUT
#
# AGENT   update-agent, linked statically (RUSTFLAGS="-C target-feature=+crt-static"): it maps the slot
#         with the root hash that the chooser passes, mounts it read-only as / and runs its init
# OUT     a cpio archive; name it as `initrd` in /boot/racklet.conf of the image
#
# $MODULES lists the modules to load first; they are taken from /lib/modules/KERNEL-RELEASE, with their
# dependencies. $INIT runs if the command line has no init=.
set -eu
agent=$1 release=$2 out=$3
modules=${MODULES:-nvme ext4 crc32c_generic dm-verity sha256_generic}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/etc/update-agent" "$work/lib/modules" "$work/proc" "$work/sys" "$work/dev"
install -m 0755 "$agent" "$work/init"

list=
for module in $modules; do
    # `insmod FILE PARAMETERS` or `builtin NAME`, dependencies first.
    for file in $(modprobe -S "$release" --show-depends "$module" | sed -n 's/^insmod \([^ ]*\).*/\1/p'); do
        name=$(basename "$file")
        case " $list" in *"/$name\""*) continue ;; esac
        cp "$file" "$work/lib/modules/$name"
        list="$list\"/lib/modules/$name\", "
    done
done
{
    echo "modules = [$list]"
    echo "init = \"${INIT:-/sbin/init}\""
} >"$work/etc/update-agent/initramfs.toml"
chmod 0644 "$work/etc/update-agent/initramfs.toml"

(cd "$work" && find . -mindepth 1 | LC_ALL=C sort | cpio --quiet -o -H newc --owner 0:0) >"$out"
