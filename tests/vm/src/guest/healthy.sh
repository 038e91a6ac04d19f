#!/bin/sh
# A release may be broken on some machines, by their names.
[ -e /etc/breaks ] || exit 0
! grep -qx "$(cat /data/name)" /etc/breaks
