#!/usr/bin/env bash
# Hosts on one machine, for tests: network namespaces behind a switch, each with an sshd, keys that are thrown away, and a
# monotonic clock of its own. Needs root, ip, sshd, ssh, nsenter and unshare.
#
#   ssh.sh FOLDER SECONDS…     a host for each offset of its clock: h1, h2, …
#
# Prints "ready PREFIX": PREFIX-h1 is the namespace of h1, whose address is 10.77.0.11. FOLDER/on COMMAND… runs a command on the
# host that ssh -F FOLDER/config reaches all others from. Everything ends, and is removed, when the standard input ends.
set -euo pipefail

folder=$1
shift
umask 077
mkdir -p /run/sshd
. "$(dirname -- "$0")/network.sh"

ssh-keygen -q -t ed25519 -N '' -f "$folder/host-key"
ssh-keygen -q -t ed25519 -N '' -f "$folder/user-key"
cat >"$folder/sshd_config" <<CONFIG
HostKey $folder/host-key
AuthorizedKeysFile $folder/user-key.pub
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
CONFIG
cat >"$folder/config" <<CONFIG
Host *
  User root
  IdentityFile $folder/user-key
  IdentitiesOnly yes
  UserKnownHostsFile $folder/known_hosts
  GlobalKnownHostsFile /dev/null
  BatchMode yes
  LogLevel ERROR
CONFIG

number=0
for offset; do
    number=$((number + 1))
    address=10.77.0.$((10 + number))
    namespace "h$number" "$address"
    echo "$address $(cut -d ' ' -f 1,2 "$folder/host-key.pub")" >>"$folder/known_hosts"
    sed -i "1i Host h$number\n  HostName $address" "$folder/config"

    on_host "h$number" "$offset" /usr/sbin/sshd -D -e -o ListenAddress="$address" -f "$folder/sshd_config" \
        </dev/null >"$folder/sshd-$number.log" 2>&1 &
    disown
done

for ((host = 1; host <= number; host++)); do
    for _ in {1..100}; do
        if nsenter --net="/run/netns/$rig-control" ssh -F "$folder/config" "h$host" true </dev/null 2>/dev/null; then
            continue 2
        fi
        sleep 0.1
    done
    echo "h$host cannot be reached: $(tail -n 1 "$folder/sshd-$host.log")" >&2
    exit 1
done

cat >"$folder/on" <<ON
#!/bin/sh
exec nsenter --net=/run/netns/$rig-control "\$@"
ON
chmod +x "$folder/on"
echo "ready $rig"
cat >/dev/null
