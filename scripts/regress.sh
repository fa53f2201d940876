#!/usr/bin/env bash
# Is the working tree slower than an earlier revision? Builds both and runs the gate between them.
#
#   scripts/regress.sh              against the merge base with the main branch
#   scripts/regress.sh REV          against any revision
#   scripts/regress.sh REV --quick  any other option goes to `echobench gate`
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "$0")/.."

# One line on the error stream, with advice where a part of the history is missing.
fail() {
    local advice=
    if [ "$(git rev-parse --is-shallow-repository)" = true ]; then
        advice="; this clone is shallow, deepen it: git fetch --unshallow"
    fi
    echo "scripts/regress.sh: $1$advice" >&2
    exit 1
}

# A pull request is checked out without a local main, and often without origin/HEAD.
merge_base() {
    local branch
    for branch in refs/remotes/origin/HEAD refs/remotes/origin/main refs/heads/main; do
        if git rev-parse --verify --quiet "$branch^{commit}" >/dev/null; then
            git merge-base HEAD "$branch" || fail "no common ancestor of HEAD and ${branch#refs/*/}"
            return
        fi
    done
    fail "no origin/HEAD, origin/main or main to compare with, name a revision: scripts/regress.sh REV"
}

case ${1-} in
'' | -*) revision=$(merge_base) ;;
*)
    revision=$(git rev-parse --verify --quiet "$1^{commit}") || fail "no revision '$1'"
    shift
    ;;
esac

worktree=$(mktemp -d)
trap 'git worktree remove --force "$worktree" 2>/dev/null || rm -rf "$worktree"' EXIT
git worktree add --quiet --detach "$worktree" "$revision"

# Both from this folder, so that the same toolchain and configuration build them.
candidate=$(scripts/build.sh)
baseline=$(scripts/build.sh --locked --package echobench --bin echobench \
    --manifest-path "$worktree/Cargo.toml" --target-dir target/baseline)
"$candidate" gate --baseline "$baseline" --candidate "$candidate" "$@"
