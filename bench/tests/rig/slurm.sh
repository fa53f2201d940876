#!/usr/bin/env bash
# Hosts on one machine that Slurm starts processes on, for tests: network namespaces behind a switch, each with a slurmd and a
# monotonic clock of its own, and one allocation of them all. Needs root, ip, nsenter, unshare, munged, slurmctld, slurmd, srun
# and salloc.
#
#   slurm.sh FOLDER SECONDS…     a host for each offset of its clock: h1, h2, …
#
# Prints "ready PREFIX": PREFIX-h1 is the namespace of h1, whose address is 10.77.0.11. FOLDER/on COMMAND… runs a command on the
# host of the controller, inside of the allocation. Everything ends, and is removed, when the standard input ends.
set -euo pipefail

folder=$1
shift
. "$(dirname -- "$0")/network.sh"

# wait_for SECONDS COMMAND…: fails where the command has not succeeded by then.
wait_for() {
    local tries=$(($1 * 10))
    shift
    for ((; tries > 0; tries--)); do
        if "$@" >/dev/null 2>&1; then return; fi
        sleep 0.1
    done
    echo "waited in vain for: $*" >&2
    tail -qn 2 "$folder"/*.log >&2 || true
    exit 1
}

# The key is for this network alone. munged is no root, and has to reach its folder.
chmod 711 "$folder"
mkdir "$folder/munge"
(umask 077 && head -c 1024 /dev/urandom >"$folder/munge/key")
chown -R munge: "$folder/munge"
nsenter --net="/run/netns/$rig-control" setpriv --pdeathsig KILL setpriv --reuid munge --regid munge --init-groups \
    /usr/sbin/munged --foreground --force --key-file="$folder/munge/key" --socket="$folder/munge/socket" \
    --pid-file="$folder/munge/pid" --log-file="$folder/munge/log" --seed-file="$folder/munge/seed" \
    </dev/null >"$folder/munged.log" 2>&1 &
disown

export SLURM_CONF=$folder/slurm.conf
cat >"$SLURM_CONF" <<CONF
ClusterName=$rig
SlurmctldHost=control(10.77.0.1)
SlurmUser=root
AuthInfo=socket=$folder/munge/socket
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool.%n
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
KillWait=2
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
mkdir "$folder/state"
number=0
for _; do
    number=$((number + 1))
    namespace "h$number" "10.77.0.$((10 + number))"
    mkdir "$folder/spool.h$number"
    echo "NodeName=h$number NodeAddr=10.77.0.$((10 + number)) CPUs=$(nproc) State=UNKNOWN" >>"$SLURM_CONF"
done

wait_for 10 test -S "$folder/munge/socket"
on_host control 0 /usr/sbin/slurmctld -D </dev/null >"$folder/slurmctld.log" 2>&1 &
disown
number=0
for offset; do
    number=$((number + 1))
    on_host "h$number" "$offset" /usr/sbin/slurmd -D -N "h$number" </dev/null >"$folder/slurmd-$number.log" 2>&1 &
    disown
done

on_control() { nsenter --net="/run/netns/$rig-control" unshare --uts sh -c 'hostname control && exec "$@"' control "$@"; }
are_idle() { [ "$(on_control sinfo --noheader --Node --format %T | grep -c '^idle$')" = "$number" ]; }
wait_for 30 are_idle

job=$(on_control salloc --no-shell --nodes "$number" --exclusive 2>&1 | grep -om 1 '[0-9][0-9]*')
cat >"$folder/on" <<ON
#!/bin/sh
export SLURM_CONF=$SLURM_CONF SLURM_JOB_ID=$job
exec nsenter --net=/run/netns/$rig-control unshare --uts sh -c 'hostname control && exec "\$@"' control "\$@"
ON
chmod +x "$folder/on"
echo "ready $rig"
cat >/dev/null
