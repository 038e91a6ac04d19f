#!/bin/sh
# A hook of debian-image: a shell for the harness on the serial line, and the journal beside it.
set -e
tree=$1
install -D -m 755 "${0%/*}/shell" "$tree/usr/lib/guest-shell"
mkdir -p "$tree/etc/systemd/journald.conf.d"
printf '[Journal]\nForwardToConsole=yes\nTTYPath=/dev/ttyS0\nMaxLevelConsole=info\n' \
    >"$tree/etc/systemd/journald.conf.d/console.conf"
cat >"$tree/etc/systemd/system/guest-shell.service" <<'END'
[Unit]
After=update-agent.service
[Service]
ExecStart=/usr/lib/guest-shell
StandardInput=tty
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
Restart=always
[Install]
WantedBy=multi-user.target
END
systemctl --quiet --root="$tree" enable guest-shell.service
systemctl --quiet --root="$tree" mask serial-getty@ttyS0.service
