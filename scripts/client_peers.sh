#!/usr/bin/env bash
# Compares the clients of `echobench load --driver tasks` with the same written by hand in C (clients/peers/load.c):
# one connection, all on one CPU, and many connections, clients and server on a CPU each. Both drive the same server
# (servers/peers/epoll.c) in turn. Prints requests per second of ours ÷ those of C: median, minimum and maximum.
#
#   scripts/client_peers.sh            20 pairs of each, 1 s a run
#   scripts/client_peers.sh 10 500     10 pairs of each, 500 ms a run
#
# Needs a C compiler (`cc`, or what CC names), taskset, and two CPUs.
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "$0")/.."

pairs=${1:-20}
millis=${2:-1000}
echobench=${ECHOBENCH:-$(scripts/build.sh)}
folder=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server"; rm -rf "$folder"' EXIT

"${CC:-cc}" -O2 -o "$folder/server" servers/peers/epoll.c
"${CC:-cc}" -O2 -o "$folder/load" clients/peers/load.c

# Nobody listens on a free port until the server does: tell the port by asking who does.
start_server() {
    local try
    for try in {1..20}; do
        port=$((20000 + RANDOM % 12000))
        setpriv --pdeathsig KILL taskset -c "$1" "$folder/server" "$port" 2>/dev/null &
        server=$!
        for _ in {1..50}; do
            kill -0 "$server" 2>/dev/null || break
            if (: <>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then return; fi
            sleep 0.02
        done
    done
    echo "no free port after $try attempts" >&2
    exit 1
}

ours() {
    taskset -c "$1" "$echobench" load "127.0.0.1:$port" --driver tasks --clients "$2" --duration "${millis}ms" --json |
        grep -o '"throughput_per_second":[ ]*[0-9.]*' | head -n 1 | grep -o '[0-9.]*$'
}

in_c() { taskset -c "$1" "$folder/load" "$port" "$2" "$millis"; }

# compare NAME CLIENTS CPU_OF_CLIENTS CPU_OF_SERVER
compare() {
    start_server "$4"
    for ((pair = 0; pair < pairs; pair++)); do
        if ((pair % 2)); then
            c=$(in_c "$3" "$2") own=$(ours "$3" "$2")
        else
            own=$(ours "$3" "$2") c=$(in_c "$3" "$2")
        fi
        awk -v own="$own" -v c="$c" 'BEGIN { printf "%.4f %.0f %.0f\n", own / c, own, c }'
    done | sort -n | awk -v name="$1" '
        { ratio[NR] = $1; own[NR] = $2; c[NR] = $3 }
        END { m = int((NR + 1) / 2); printf "%-34s %.3f [%.3f, %.3f]   %d pairs\n", name, ratio[m], ratio[1], ratio[NR], NR }'
    kill "$server"
    wait "$server" 2>/dev/null || true
    server=
}

compare "1 connection, one CPU" 1 0 0
compare "64 connections, a CPU each" 64 0 1
compare "1000 connections, a CPU each" 1000 0 1
