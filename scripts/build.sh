#!/usr/bin/env bash
# Builds an executable in release mode and prints its path, as cargo tells it: the target folder may be
# set by CARGO_TARGET_DIR, CARGO_BUILD_TARGET_DIR, a cargo configuration file or a target triple.
#
#   "$(scripts/build.sh)" list                   build echobench, then run it
#   scripts/build.sh --package PACKAGE --bin X   options of `cargo build`, to build another one
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "$0")/.."

[ $# -gt 0 ] || set -- --locked --package echobench --bin echobench
messages=$(cargo build --release --message-format=json-render-diagnostics "$@")

# One line of JSON per artifact; only the one of an executable holds a string in `executable`.
path=$(sed -n 's/.*"executable":"\(\([^"\\]\|\\.\)*\)".*/\1/p' <<<"$messages" | tail -n 1 | sed 's/\\\(.\)/\1/g')
if [ ! -x "$path" ]; then
    echo "scripts/build.sh: cargo did not say which executable it built" >&2
    exit 1
fi
printf '%s\n' "$path"
