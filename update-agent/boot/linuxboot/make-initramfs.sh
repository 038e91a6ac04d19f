#!/bin/sh
# Makes the initramfs of a LinuxBoot chooser: make-initramfs.sh AGENT CONFIG ROOT.JSON KERNEL-RELEASE OUT
#
# AGENT   update-agent, linked statically (RUSTFLAGS="-C target-feature=+crt-static")
# CONFIG  update-agent.toml with [chooser]; modules = [] is filled with the modules in $MODULES
# OUT     a cpio archive for `-initrd`, or to be built into the firmware's kernel
#
# The modules are taken from /lib/modules/KERNEL-RELEASE, with their dependencies. If CONFIG has [floor], add
# the TPM's driver: tpm_crb or tpm_tis.
set -eu
agent=$1 config=$2 root=$3 release=$4 out=$5
modules=${MODULES:-nvme ext4 crc32c_generic dm-verity}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/etc/update-agent" "$work/lib/modules" "$work/proc" "$work/sys" "$work/dev"
install -m 0755 "$agent" "$work/init"
install -m 0644 "$root" "$work/etc/update-agent/root.json"

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
sed "s|^modules = \[\]|modules = [$list]|" "$config" >"$work/etc/update-agent/update-agent.toml"
chmod 0644 "$work/etc/update-agent/update-agent.toml"

(cd "$work" && find . -mindepth 1 | LC_ALL=C sort | cpio --quiet -o -H newc --owner 0:0) >"$out"
