#!/usr/bin/env bash
# Is the working tree slower than an earlier revision? Builds both and runs the gate between them.
#
#   scripts/regress.sh              against the merge base with main
#   scripts/regress.sh REV          against any revision
#   scripts/regress.sh REV --quick  any other option goes to `echobench gate`
set -euo pipefail
cd "$(dirname "$0")/.."

revision=$(git merge-base HEAD main)
case ${1-} in
'' | -*) ;;
*)
    revision=$1
    shift
    ;;
esac

worktree=$(mktemp -d)
trap 'git worktree remove --force "$worktree" 2>/dev/null || rm -rf "$worktree"' EXIT
git worktree add --quiet --detach "$worktree" "$revision"
cargo build --release --locked --package echobench
candidate=${CARGO_TARGET_DIR:-target}/release/echobench
CARGO_TARGET_DIR=target/baseline cargo build --release --locked --package echobench \
    --manifest-path "$worktree/Cargo.toml"
"$candidate" gate --baseline target/baseline/release/echobench --candidate "$candidate" "$@"
