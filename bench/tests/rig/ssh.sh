#!/usr/bin/env bash
# Hosts on one machine, for tests: network namespaces behind a switch, each with an sshd, keys that are thrown away, and a
# monotonic clock of its own. Needs root, ip, sshd, ssh and unshare.
#
#   ssh.sh FOLDER SECONDS…     a host for each offset of its clock: h1, h2, …
#
# Prints "ready ADDRESS NAMESPACE", the address of h1 and the namespace that ssh -F FOLDER/config reaches all hosts from.
# Everything ends, and is removed, when the standard input ends.
set -euo pipefail

folder=$1
shift
rig=eb$$
umask 077
mkdir -p /run/sshd

remove() {
    local name pid
    for name in $(ip netns list | cut -d ' ' -f 1 | grep "^$rig-"); do
        # Only what was started in these namespaces.
        for pid in $(ip netns pids "$name"); do kill -9 "$pid" 2>/dev/null || true; done
        ip netns del "$name"
    done
}
trap remove EXIT
trap 'exit 1' TERM INT HUP

# namespace NAME ADDRESS: a host on the switch.
namespace() {
    ip netns add "$rig-$1"
    ip -n "$rig-$1" link set lo up
    ip link add name eth0 netns "$rig-$1" type veth peer name "p-$1" netns "$rig-switch"
    ip -n "$rig-switch" link set "p-$1" master switch up
    ip -n "$rig-$1" address add "$2/24" dev eth0
    ip -n "$rig-$1" link set eth0 up
}

ip netns add "$rig-switch"
ip -n "$rig-switch" link add switch type bridge
ip -n "$rig-switch" link set switch up
namespace control 10.77.0.1

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

    # The clock of a time namespace is set before its first process.
    ip netns exec "$rig-h$number" setpriv --pdeathsig KILL \
        unshare --time --fork --kill-child --monotonic "$offset" --boottime "$offset" \
        /usr/sbin/sshd -D -e -o ListenAddress="$address" -f "$folder/sshd_config" \
        </dev/null >"$folder/sshd-$number.log" 2>&1 &
    disown
done

for ((host = 1; host <= number; host++)); do
    for _ in {1..100}; do
        if ip netns exec "$rig-control" ssh -F "$folder/config" "h$host" true </dev/null 2>/dev/null; then
            continue 2
        fi
        sleep 0.1
    done
    echo "h$host cannot be reached: $(tail -n 1 "$folder/sshd-$host.log")" >&2
    exit 1
done

echo "ready 10.77.0.11 $rig-control"
cat >/dev/null
