#!/bin/sh
# The first process of a guest: starts what its release is made to show, lets the agent finish what
# the boot left to do, then obeys the serial line. Lines with @@ are for the harness.
export PATH=/bin
# Some kernels or initramfs did it already; and there is no /dev/null to say that into before.
[ -d /proc/self ] || mount -t proc proc /proc
[ -d /sys/block ] || mount -t sysfs sys /sys
[ -c /dev/null ] || mount -t devtmpfs dev /dev
mount -t tmpfs run /run
exec </dev/ttyS0 >/dev/ttyS0 2>&1
stty -echo

version=$(cat /etc/version)
mode=$(cat /etc/mode)
echo "@@start version=$version mode=$mode"
echo 1 >/proc/sys/kernel/sysrq
case $mode in
    panic) echo c >/proc/sysrq-trigger ;;
    hang) while :; do sleep 100; done ;;
esac

# On a kernel with these built in they do not fit, and are not missed.
while read -r module; do insmod "$module" 2>/dev/null; done </etc/modules
tries=0
while [ $tries -lt 100 ]; do
    # A disk that signer factory made for U-Boot has six partitions.
    for data in /dev/vda6 /dev/nvme0n1p5 /dev/sda5 /dev/vda5; do
        [ -b $data ] && break 2
    done
    sleep 0.1
    tries=$((tries + 1))
done
mount -t ext4 $data /data || echo "@@no data partition"
[ -e /data/esp-at ] && mount -t vfat -o umask=077 "$(cat /data/esp-at)" /esp

[ "$mode" = netdead ] || { ip link set lo up; httpd -p 127.0.0.1:8080 -h /www; }
[ "$mode" = unhealthy ] || touch /run/healthy
[ "$mode" = hanglate ] && { sleep 30; echo "@@everything stops"; kill -STOP -1; } &
# The service manager's part: the watchdog is fed while there is an agent that looks after things.
[ -x /bin/update-agent ] && { while :; do echo; sleep 2; done >/dev/watchdog; } 2>/dev/null &

# What / is: the name of a device-mapper device, of a disk, or nothing but memory.
while read -r _ _ dev _ at _; do [ "$at" = / ] && rootdev=$dev; done </proc/self/mountinfo
root=$(cat "/sys/dev/block/$rootdev/dm/name" 2>/dev/null) && root=dm-$root ||
    root=$(cd "/sys/dev/block/$rootdev" 2>/dev/null && pwd -P) || root=memory

agent() { update-agent --config /data/agent.toml "$@"; }
slot=$(sed -n 's/.*racklet\.slot=\([ab]\).*/\1/p' /proc/cmdline)
echo "@@boot slot=$slot version=$version"
agent run --once --json
echo "@@agent ended with $?"
# A node whose agent is missing has nobody who could say that it works.
[ -x /bin/update-agent ] || while :; do sleep 100; done
echo "@@ready slot=$slot version=$version root=${root##*/}"
while read -r line; do
    eval "$line"
    echo "@@rc $?"
done
