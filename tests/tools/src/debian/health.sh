#!/bin/sh
# Is the system in this slot fit to serve? Run inside it (booted, or in a chroot of the slot).
# Exit 0: yes. Anything else: no, and the last line says what is wrong.
set -u
fail() {
    echo "unhealthy: $*" >&2
    exit 1
}
. /etc/racklet-release || fail "no /etc/racklet-release"
mkdir -p /run /var/log/nginx
python3 -c 'import hashlib, json, ssl' || fail "python3 cannot load its TLS library"
nginx -t -q || fail "nginx refuses its configuration"
echo "healthy: $RACKLET_PRODUCT $RACKLET_VERSION, $(openssl version 2>/dev/null || echo 'no openssl')"
