#!/usr/bin/env bash
# Makes the README's tables and pictures again, from the committed results that it names.
#
#   scripts/report.sh         from the same results folder as now
#   scripts/report.sh DIR     from another
#
# The pictures are those charts of the report that are in docs/img.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo build --release --locked --package echobench
echobench=${CARGO_TARGET_DIR:-target}/release/echobench

results=${1-$(sed -n 's/^`echobench table \(.*\)`$/\1/p' README.md)}
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

"$echobench" table "$results" --into README.md
"$echobench" report "$results" --out "$out/report.html" >/dev/null
for picture in docs/img/*.svg; do
    cp "$out/report/${picture##*/}" "$picture"
done
