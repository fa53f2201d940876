# Recipes for everyday work; `just` lists them. Every recipe is one command that works without just.

set positional-arguments

_list:
    @just --list

# Formats the sources
fmt:
    cargo fmt --all

# Checks formatting, lints, documentation and licences
check:
    .ci/run format clippy documentation licences

# Runs the tests, or those of `just test -p PACKAGE FILTER`
test *arguments='--workspace':
    cargo test --locked {{ arguments }}

# Runs the benchmarks whose names hold the filter
bench *filter:
    cargo bench --package echobench --bench suite -- "$@"

# Compares the server models and prints the tables
compare *arguments:
    scripts/compare.sh "$@"

# Compares the working tree with an earlier revision, by default where it left main
gate *arguments:
    scripts/regress.sh "$@"

# Writes the tables and pictures of the documents again
report *folder:
    scripts/report.sh "$@"

# Fuzzes one target for so many seconds
fuzz *arguments:
    scripts/fuzz.sh "$@"

# Runs everything that must hold before a change lands, or these steps of it
ci *steps:
    .ci/run "$@"
