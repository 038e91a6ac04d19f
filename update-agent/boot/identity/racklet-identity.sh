#!/bin/sh
# Gives a node what must be its own, and keeps it through updates: machine id, ssh host keys, GUIDs of its disk.
# Installed as /usr/lib/racklet/identity; racklet-identity.service runs it at every start, before all services.
#
#   machine id   drawn at the first start, in place of whatever the image has, which all nodes share
#   host keys    drawn at the first start, if openssh is installed; name them in sshd_config:
#                HostKey /var/lib/racklet-identity/etc/ssh/ssh_host_ed25519_key
#   disk         new GUIDs of disk and partitions on a disk that `signer factory` made, and the backup table at the
#                end of a larger disk; needs gdisk
#
# A power cut leaves each of them as it was or new: whatever is missing is done at the next start.
set -eu

own=/var/lib/racklet-identity
# `signer factory` puts it beside the agent's state.
first_boot=/var/lib/update-agent.first-boot

mkdir -p "$own"

if [ ! -s "$own/machine-id" ]; then
    tr -d - </proc/sys/kernel/random/uuid >"$own/machine-id.new"
    sync "$own/machine-id.new"
    mv "$own/machine-id.new" "$own/machine-id"
fi
# The file has to be there, and may be empty, because the root file system is read-only. With an empty one systemd has
# drawn an id for this boot, under which journald writes what journalctl would not find.
mount --bind "$own/machine-id" /etc/machine-id
if [ -d /run/log/journal ] && [ ! -d "/run/log/journal/$(cat /etc/machine-id)" ]; then
    systemctl restart --no-block systemd-journald.service
fi
# A package may have made a second one while the image was built, which D-Bus would believe.
if [ -f /var/lib/dbus/machine-id ] && [ ! -L /var/lib/dbus/machine-id ]; then
    ln -sf /etc/machine-id /var/lib/dbus/machine-id
fi

if command -v ssh-keygen >/dev/null; then
    mkdir -p "$own/etc/ssh"
    # Makes the kinds of keys that are missing.
    ssh-keygen -A -f "$own" >/dev/null
fi

if [ -e "$first_boot" ]; then
    part=$(findmnt -n -o SOURCE --target "$own")
    disk=$(lsblk -n -d -o PKNAME "$part")
    # Labels stay, and nothing else names these partitions. The kernel keeps its view until the next start.
    sgdisk --move-second-header --randomize-guids "/dev/$disk" >/dev/null
    sync
    rm "$first_boot"
    sync "${first_boot%/*}"
fi
