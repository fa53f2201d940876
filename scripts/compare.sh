#!/usr/bin/env bash
# Compares the server models under the committed scenarios and prints a table for each.
#
#   scripts/compare.sh              the quick form, about three minutes after the build
#   scripts/compare.sh --full       the long form, whose results are worth keeping
#   scripts/compare.sh --from DIR   the tables of an earlier run
#
# Any other option goes to `echobench run` (see `echobench run --help`).
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "$0")/.."

echobench=$(scripts/build.sh)

if [ "${1-}" = --from ]; then
    exec "$echobench" table "${@:2}"
fi
exec "$echobench" run steady churn blocking "$@"
