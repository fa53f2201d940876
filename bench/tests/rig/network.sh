# A network of hosts on one machine, for the scripts beside this one: network namespaces behind a switch. Needs root and ip.
# To be sourced; everything ends, and is removed, with the script.

rig=eb$$

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

# on_host NAME OFFSET COMMAND…: a command on a host, whose monotonic clock is ahead by so many seconds. The clock of a time
# namespace is set before its first process.
on_host() {
    local name=$1 offset=$2
    shift 2
    nsenter --net="/run/netns/$rig-$name" setpriv --pdeathsig KILL \
        unshare --time --uts --fork --kill-child --monotonic "$offset" --boottime "$offset" \
        sh -c 'hostname "$0" && exec "$@"' "$name" "$@"
}

ip netns add "$rig-switch"
ip -n "$rig-switch" link add switch type bridge
ip -n "$rig-switch" link set switch up
namespace control 10.77.0.1
