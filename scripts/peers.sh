#!/usr/bin/env bash
# Compares each main model with the same design written by hand: in C with nothing but the C library
# (servers/peers), and the echo example of tokio for `async`. Both are driven in turn in the same
# blocks. The last column is peer ÷ model: 1.03 or less says that the model is as good.
#
#   scripts/peers.sh             all of it, in the quick form
#   scripts/peers.sh thread      one model
#
# Needs a C compiler (`cc`, or what CC names).
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "$0")/.."

echobench=$(scripts/build.sh)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

for design in thread fork pool epoll; do
    "${CC:-cc}" -O2 -pthread -o "$folder/$design" "servers/peers/$design.c"
done
tokio=$(scripts/build.sh --quiet --locked --package echobench-servers --example tokio_echo)

# scenario NAME MODEL PEER CLIENTS DRIVER PLACEMENT PAYLOAD [REQUESTS_PER_CONNECTION]
scenario() {
    cat >"$folder/$1.toml" <<TOML
question = "Is $2 as good as the same design written by hand?"
models = ["$2"]
clients = [$4]
drivers = ["$5"]
placements = ["$6"]

[[external]]
name = "peer"
command = "$3 {port}"

[traffic]
payload_bytes = $7
${8:+requests_per_connection = $8}
timeout = "5s"

[quick]
blocks = 10
rounds = 10
slice = "30ms"
ramp = "4ms"
gap = "6ms"

[full]
blocks = 21
rounds = 20
slice = "30ms"
ramp = "4ms"
gap = "6ms"
TOML
    "$echobench" run "$folder/$1.toml" --quick --out "$folder/$1"
}

for model in "${@:-thread fork pool async}"; do
    # Without arguments, one word holds all of them.
    for model in $model; do
        peer=$folder/$model
        [ "$model" != async ] || peer=$tokio
        scenario "$model-one-cpu" "$model" "$peer" 1 threads same 64
        scenario "$model-churn" "$model" "$peer" "1, 16" threads none 64 1
        scenario "$model-raw" "$model --service raw" "$peer" 1 threads none 65536
    done
done
scenario async-1000 async "$tokio" 1000 tasks none 64
