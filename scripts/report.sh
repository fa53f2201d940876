#!/usr/bin/env bash
# Writes the tables and pictures of the documents again, from the committed results that they name:
# docs/results.md, docs/designs.md, docs/claims.md and docs/img.
#
#   scripts/report.sh         from the same results folders as now
#   scripts/report.sh DIR     the tables and pictures of docs/results.md from another
#
# The pictures are those charts of the report that are in docs/img.
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "$0")/.."

echobench=$(scripts/build.sh)

# folder_of DOCUMENT: the results folder that its tables are made from.
folder_of() { sed -n 's/^`echobench table \(.*\)`$/\1/p' "$1"; }

results=${1-$(folder_of docs/results.md)}
read -ra claims <<<"$(sed -n 's/^`echobench claims \(--from .*\)`$/\1/p' docs/claims.md)"
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

"$echobench" table "$results" --into docs/results.md
"$echobench" table "$(folder_of docs/designs.md)" --into docs/designs.md
"$echobench" claims "${claims[@]}" --into docs/claims.md
sed -i '/^This list is the output of/q' docs/claims.md
{
    echo
    "$echobench" claims --list --markdown
} >>docs/claims.md
"$echobench" report "$results" --out "$out/report.html" >/dev/null
for picture in docs/img/*.svg; do
    cp "$out/report/${picture##*/}" "$picture"
done
