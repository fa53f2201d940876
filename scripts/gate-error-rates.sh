#!/usr/bin/env bash
# How often is the gate wrong on this machine? Runs N blinded gates of single models, half of them with a candidate
# that is 5 % slower or has a tail that is 20 % worse, and writes every verdict and the error rates to a new folder
# under results/gate/.
#
#   scripts/gate-error-rates.sh 120           on a quiet machine; --models thread for one model
#   scripts/gate-error-rates.sh 60 --load     while something else uses the CPUs now and then
#   scripts/gate-error-rates.sh 20 --slower 10 --baseline 'base/echo {port}' --candidate 'head/echo {port}'
#                                             servers of another project, as in docs/examples
#   scripts/gate-error-rates.sh --from DIR…   the rates of earlier folders, and of gates resampled from their blocks;
#                                             --into FILE --marker NAME for a document
#
# It is an example of the package, bench/examples/gate-trials; any other option goes to it.
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "$0")/.."

trials=$(scripts/build.sh --locked --package echobench --example gate-trials)
if [ "${1-}" = --from ]; then
    exec "$trials" show "${@:2}"
fi
out=results/gate/$(date -u +%Y-%m-%dT%H%M%SZ)
exec "$trials" measure "$@" --out "$out"
