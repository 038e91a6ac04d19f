#!/bin/sh
# The first process of a guest with flash: makes its banks, lets the other component start from the one
# it was switched to, then obeys the serial line. Lines with @@ are for the harness.
export PATH=/bin:/sbin:/usr/sbin
mount -t proc proc /proc
mount -t sysfs sys /sys
[ -c /dev/null ] || mount -t devtmpfs dev /dev
mount -t tmpfs run /run
exec </dev/ttyS0 >/dev/ttyS0 2>&1
stty -echo
# What the emulated NOR was told goes to its drive at once and in order, as on a real one, and not
# when the page cache feels like it.
echo 8192 >/proc/sys/vm/dirty_bytes
echo 4096 >/proc/sys/vm/dirty_background_bytes
while read -r module; do insmod $module || echo "@@no $module"; done </etc/modules
tries=0
while [ $tries -lt 100 ]; do
    [ -b /dev/nvme0n1p5 ] && break
    sleep 0.1
    tries=$((tries + 1))
done
mount -t ext4 /dev/nvme0n1p5 /data || echo "@@no data partition"
if [ -e /sys/module/block2mtd ]; then
    for bank in a b; do
        disk=/dev/vd$bank
        tries=0
        while [ ! -b $disk ] && [ $tries -lt 100 ]; do sleep 0.1; tries=$((tries + 1)); done
        echo "$disk,65536,bank-$bank" >/sys/module/block2mtd/parameters/block2mtd
    done
fi
if [ -e /sys/module/mmc_block ]; then
    tries=0
    while [ ! -b /dev/mmcblk0boot1 ] && [ $tries -lt 100 ]; do sleep 0.1; tries=$((tries + 1)); done
fi
# The other component lost its power, too.
[ -e /data/bank-next ] && cp /data/bank-next /run/bank-runs
touch /run/healthy
agent() { update-agent --config /data/agent.toml "$@"; }
echo "@@ready slot=$(sed -n 's/.*racklet\.slot=\([ab]\).*/\1/p' /proc/cmdline)"
while read -r line; do
    eval "$line"
    echo "@@rc $?"
done
