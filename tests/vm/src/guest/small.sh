#!/bin/sh
# The first process of a small machine: no network of its own, its agent, then the serial line.
# Lines with @@ are for the harness.
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
# Some kernels did it already; and there is no /dev/null to say that into before.
[ -c /dev/null ] || mount -t devtmpfs dev /dev
mount -t tmpfs run /run
exec </dev/ttyS0 >/dev/ttyS0 2>&1
stty -echo

version=$(cat /etc/version)
slot=$(sed -n 's/.*racklet\.slot=\([ab]\).*/\1/p' /proc/cmdline)
echo "@@boot slot=$slot version=$version"
echo 1 >/proc/sys/kernel/sysrq
while read -r module; do insmod "$module"; done </etc/modules
tries=0
while [ $tries -lt 100 ] && [ ! -b /dev/vda4 ]; do
    sleep 0.1
    tries=$((tries + 1))
done
mount -t ext4 /dev/vda4 /data || echo "@@no data partition"
# Bundles are not on the disk whose power fails.
[ -b /dev/vdb ] && mount -t ext4 -o ro,noload /dev/vdb /bundles
# What only some machines have: a network, flash.
[ -e /data/setup.sh ] && . /data/setup.sh

agent() { update-agent --config /data/agent.toml "$@"; }
agent run --once --json
echo "@@agent ended with $?"
echo "@@ready slot=$slot version=$version"
while read -r line; do
    eval "$line"
    echo "@@rc $?"
done
