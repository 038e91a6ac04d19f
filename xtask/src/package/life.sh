#!/bin/sh
# The life of our packages in a Debian system: installed, configured, upgraded, removed, purged.
#
#   life.sh TREE OLD NEW PAGE PACKAGE…     TREE is changed; OLD and NEW hold one version of each package;
#                                          PAGE is the document whose commands are run at the end
#
# It ends with 1 at the first thing that is not as an operator expects it.
set -eu
tree=$1 old=$2 new=$3 page=$4
shift 4
packages=$*

wrong() {
    echo "$*" >&2
    exit 1
}

in_tree() {
    chroot "$tree" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 \
        DEBIAN_FRONTEND=noninteractive SYSTEMD_OFFLINE=1 "$@"
}

# Every file but dpkg's and the system's own records, with its kind, mode, owner and target.
files() {
    (cd "$tree" && find . -xdev \( -path ./var/lib/dpkg -o -path ./var/log -o -path ./var/cache -o -path ./packages \
        -o -path ./given -o -path ./proc -o -path ./var/lib/systemd -o -path './etc/passwd*' -o -path './etc/group*' \
        -o -path './etc/shadow*' -o -path './etc/gshadow*' -o -path ./etc/.pwd.lock \) -prune -o -printf '%y %m %u:%g %p %l\n' |
        LC_ALL=C sort)
}

put() {
    rm -rf "$tree/packages"
    mkdir "$tree/packages"
    cp "$1"/*.deb "$tree/packages/"
    in_tree sh -c 'dpkg -i /packages/*.deb' >"$tree.log" 2>&1 || wrong "dpkg -i: $(cat "$tree.log")"
    ! grep -i 'warning' "$tree.log" || wrong "dpkg -i warned: $(cat "$tree.log")"
}

enabled() {
    find "$tree/etc/systemd" -type l -printf '%f\n' | grep -E '^(update-agent|signer|repo-server)' || :
}

mount -t proc proc "$tree/proc"
files >"$tree.before"

echo "   installed: nothing is enabled, everything is in its place"
put "$old"
[ -z "$(enabled)" ] || wrong "enabled after the installation: $(enabled)"
for program in update-agent signer repo-server; do
    in_tree "$program" --version | grep -q '^commit    [0-9a-f]\{12\}\(-dirty\)\? of 20' ||
        wrong "$program --version names no commit: $(in_tree "$program" --version)"
    in_tree "$program" completions bash | cmp -s - "$tree/usr/share/bash-completion/completions/$program" ||
        wrong "$program: the completions are of another program"
done
for manual in update-agent.8 update-agent-apply.8 signer.1 signer-stage-publish.1 repo-server.8 repo-server-gc.8; do
    [ -f "$tree/usr/share/man/man${manual##*.}/$manual.gz" ] || wrong "no page $manual"
done
for unit in "$tree"/usr/lib/systemd/system/update-agent*.service "$tree"/usr/lib/systemd/system/signer-*.service \
    "$tree"/usr/lib/systemd/system/repo-server.service; do
    for document in $(sed -n 's/^Documentation=//p' "$unit"); do
        [ -f "$tree/${document#file:///}" ] || wrong "${unit##*/} names $document"
    done
done
in_tree journalctl --list-catalog | grep -q 'The update agent has started' || wrong "the catalog is not compiled in"
[ "$(in_tree stat -c '%U %a' /var/lib/signer)" = "signer 700" ] || wrong "/var/lib/signer has another owner"
[ "$(in_tree stat -c '%U %a' /var/lib/repo-server)" = "repo-server 750" ] || wrong "/var/lib/repo-server has another owner"
[ ! -e "$tree/var/lib/update-agent" ] || wrong "there is a state before there is an agent"
# An agent without a configuration says which file is missing.
said=$(in_tree update-agent status 2>&1) && wrong "update-agent works without a configuration"
case $said in *"error[config]"*/etc/update-agent/update-agent.toml*) ;; *) wrong "update-agent says $said" ;; esac

echo "   configured"
cp "$tree/usr/share/doc/racklet-update-agent/examples/update-agent.example.toml" \
    "$tree/etc/update-agent/update-agent.toml"
install -d -m 700 "$tree/var/lib/update-agent"
echo record >"$tree/var/lib/update-agent/boot-record.0"
cp "$tree/usr/share/doc/racklet-signer/examples/refresh.example.env" "$tree/etc/signer/refresh.env"
in_tree install -d -o signer -m 700 /var/lib/signer/online
in_tree install -o repo-server -m 640 /dev/null /var/lib/repo-server/oci-layout
in_tree systemctl --quiet enable update-agent.service signer-refresh.timer
before=$(enabled)
[ -n "$before" ] || wrong "nothing can be enabled"
kept="etc/update-agent var/lib/update-agent etc/signer var/lib/signer var/lib/repo-server"
state() { (cd "$tree" && for one in $kept; do find "$one" -printf '%p %m %u %T@ %s\n'; done); }
state >"$tree.state"

# What readers of the page have: keys, tokens, a certificate, and an editor.
mkdir "$tree/given"
in_tree sh -ec 'cd /given; umask 077; signer --quiet init --repo oci:repo --keys online; cp online/root.json .
    : >push-token; : >push-tokens; : >server.pem; : >server.key' >"$tree.log" 2>&1 || wrong "signer: $(cat "$tree.log")"

echo "   upgraded: configuration, state and what is enabled are as before"
put "$new"
[ "$(enabled)" = "$before" ] || wrong "the upgrade changed what is enabled: $(enabled)"
state | cmp - "$tree.state" || wrong "the upgrade changed a configuration or a state"
for package in $packages; do
    in_tree dpkg-query -Wf '${Version}' "$package" | grep -q '+next$' || wrong "$package was not upgraded"
done

echo "   removed: programs and units are gone, configuration and state are not"
in_tree dpkg -r $packages >/dev/null 2>"$tree.log" || wrong "dpkg -r: $(cat "$tree.log")"
[ ! -e "$tree/usr/bin/update-agent" ] || wrong "a program is left"
state | cmp - "$tree.state" || wrong "the removal changed a configuration or a state"

echo "   purged: nothing is left but what was put there, and each folder of it is named"
said=$(in_tree dpkg -P $packages 2>&1) || wrong "dpkg -P: $said"
state | cmp - "$tree.state" || wrong "the purge removed a configuration or a state"
for folder in $kept; do
    case $said in *"/$folder was kept"*"rm -r /$folder"*) ;; *) wrong "purge does not name /$folder: $said" ;; esac
done
[ -z "$(enabled)" ] || wrong "still enabled after the purge: $(enabled)"
for folder in $kept; do
    rm -r "${tree:?}/$folder"
done
files | diff "$tree.before" - >"$tree.log" || wrong "left after the purge: $(cat "$tree.log")"

echo "   installed, configured and purged as the page says"
cp "$old"/*.deb "$tree/given/"
# An editor that takes away what needs files of the reader's own.
in_tree sh -c 'printf "#!/bin/sh\nsed -i \"/^ca = /d\" \"\$1\"\n" >/usr/bin/editor; chmod +x /usr/bin/editor'
sed -n '/^```text$/,/^```$/s/^# //p' "$page" >"$tree/given/commands"
[ "$(wc -l <"$tree/given/commands")" -ge 15 ] || wrong "$page has hardly any commands"
# No systemd runs here that could start what is enabled.
in_tree sh -exc 'cd /given
    systemctl() { [ "$2" != --now ] || { action=$1; shift 2; set -- "$action" "$@"; }; command systemctl "$@"; }
    . ./commands' >"$tree.log" 2>&1 || wrong "$page: $(cat "$tree.log")"
for unit in update-agent.service signer-refresh.timer signer-alarm.timer repo-server.service; do
    grep -q "Created symlink .*/$unit" "$tree.log" || wrong "$page does not enable $unit: $(cat "$tree.log")"
done
[ -z "$(enabled)" ] || wrong "$page leaves enabled: $(enabled)"
[ ! -e "$tree/usr/bin/signer" ] || wrong "$page leaves a program"
[ -f "$tree/etc/update-agent/update-agent.toml" ] || wrong "$page takes the configuration away"
