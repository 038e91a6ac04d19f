#!/bin/sh
# The harness' hand in a guest that systemd runs. Lines with @@ are for it.
stty -echo
. /etc/os-release
slot=$(sed -n 's/.*racklet\.slot=\([ab]\).*/\1/p' /proc/cmdline)
echo "@@shell slot=$slot version=$IMAGE_VERSION"
while read -r line; do
    eval "$line"
    echo "@@rc $?"
done
