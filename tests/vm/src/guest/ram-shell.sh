#!/bin/sh
# The harness' hand in a guest that OpenRC runs. Lines with @@ are for it.
exec </dev/ttyS0 >/dev/ttyS0 2>&1
stty -echo
. /etc/os-release
slot=$(sed -n 's/.*racklet\.slot=\([ab]\).*/\1/p' /proc/cmdline)
echo "@@shell slot=$slot version=$IMAGE_VERSION"
while read -r line; do
    eval "$line"
    echo "@@rc $?"
done
