#!/usr/bin/env bash
# How often is the gate wrong on this machine? Runs N blinded gates, half of them with a candidate that
# is 5 % slower, and writes every verdict and the error rates to a new folder under results/gate/.
#
#   scripts/gate-error-rates.sh 120           on a quiet machine
#   scripts/gate-error-rates.sh 60 --load     while something else uses the CPUs now and then
#
# Any other option goes to `echobench gate-trials` (see `echobench gate-trials --help`).
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "$0")/.."

echobench=$(scripts/build.sh)
out=results/gate/$(date -u +%Y-%m-%dT%H%M%SZ)
exec "$echobench" gate-trials "$@" --quick --models thread --out "$out"
