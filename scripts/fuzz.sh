#!/usr/bin/env bash
# Fuzzes one target (session, tables or scenario) for so many seconds, with the stable toolchain:
#   scripts/fuzz.sh session 600
# What it finds is kept in fuzz/artifacts; the corpus grows in fuzz/target, not in the committed one.
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "$0")/../fuzz"

target=$1
seconds=${2:-60}
host=$(rustc -vV | sed -n 's/^host: //p')
coverage="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1"
fuzzer=$(RUSTFLAGS=$coverage ../scripts/build.sh --manifest-path fuzz/Cargo.toml --target "$host" --bin "$target")
mkdir -p "artifacts/$target" "target/corpus/$target"
exec "$fuzzer" "target/corpus/$target" "corpus/$target" \
    -artifact_prefix="artifacts/$target/" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048
