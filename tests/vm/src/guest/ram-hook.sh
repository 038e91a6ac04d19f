#!/bin/sh
# A hook of ram-image: makes the Alpine of a package from PyPI, which its maker set up for a virtual machine without a
# disk of its own, an ordinary one, and gives the harness a shell on the serial line.
set -e
tree=$1
here=${0%/*}
# What that maker added, and what OpenRC does not start where it takes the machine for a container.
for name in quicksand-guest-agent setup-dns; do
    rm -f "$tree/etc/init.d/$name" "$tree"/etc/runlevels/*/"$name"
done
rm -f "$tree/.dockerenv" "$tree/usr/local/bin/quicksand-guest-agent"
sed -i -e '/^rc_sys=/d' -e '/^rc_parallel=/d' "$tree/etc/rc.conf"
# Drivers of devices that no machine here has are half of the system.
for folder in sound drivers/gpu drivers/infiniband drivers/iommu drivers/scsi drivers/nvme drivers/usb drivers/hid \
    fs/btrfs fs/xfs fs/nfs fs/nfsd fs/smb fs/ocfs2 fs/ceph fs/f2fs net/netfilter net/sched net/sunrpc net/openvswitch; do
    rm -rf "$tree"/lib/modules/*/kernel/"$folder"
done
# The agent says what it does on the serial line.
printf 'output_log=/dev/ttyS0\nerror_log=/dev/ttyS0\n' >"$tree/etc/conf.d/update-agent"
sed -i '/^tty[0-9]/d' "$tree/etc/inittab"
echo 'ttyS0::respawn:/usr/lib/guest-shell' >>"$tree/etc/inittab"
install -D -m 755 "$here/ram-shell.sh" "$tree/usr/lib/guest-shell"
[ -e "$here/broken" ] || echo works >"$tree/etc/works"
