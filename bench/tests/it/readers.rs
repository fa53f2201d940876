//! The committed rows as other programs read them: `DuckDB`, where Python has it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{claims, run};
use echobench::results::SCHEMA_VERSION;

/// Rows of a file in all committed results folders.
fn rows(results: &Path, file: &str) -> usize {
    let folders = fs::read_dir(results).unwrap();
    let files = folders.map(|folder| folder.unwrap().path().join(file));
    let texts = files.filter_map(|file| fs::read_to_string(file).ok());
    texts.map(|text| text.lines().count() - 1).sum()
}

/// The columns of a file are those of its version, or a reader of all runs together has values that are missing
/// without a word.
#[test]
fn committed_files_have_the_columns_of_their_version() {
    let results = Path::new(env!("CARGO_MANIFEST_DIR")).join("../results");
    let mut files = 0;
    for folder in fs::read_dir(results).unwrap() {
        let folder = folder.unwrap().path();
        for (file, columns) in [
            ("slices.csv", run::SLICES),
            ("blocks.csv", run::BLOCKS),
            ("summary.csv", run::SUMMARY),
            ("claims.csv", claims::COLUMNS),
        ] {
            let path = folder.join(file);
            let Ok(text) = fs::read_to_string(&path) else {
                continue;
            };
            assert_eq!(text.lines().next(), Some(columns), "{}", path.display());
            files += 1;
        }
    }
    assert!(files > 0);
}

fn python(script: &str, results: &Path) -> Option<String> {
    let output = Command::new("python3")
        .args(["-c", script])
        .current_dir(results)
        .output()
        .ok()?;
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("No module named") {
        return None;
    }
    assert!(output.status.success(), "{said}");
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn duckdb_reads_every_committed_row() {
    let results: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../results");
    for (file, number) in [
        ("slices.csv", "answered"),
        ("blocks.csv", "cpu_ns_per_request"),
        ("summary.csv", "estimate"),
        ("claims.csv", "value"),
    ] {
        let script = format!(
            "import duckdb\n\
             rows = duckdb.sql(\"SELECT count(*), min(schema_version), count(TRY_CAST({number} AS DOUBLE)), \
             count({number}) FROM read_csv('*/{file}', union_by_name = true)\").fetchall()[0]\n\
             print(*rows)"
        );
        let Some(answer) = python(&script, &results) else {
            eprintln!("skipped: there is no DuckDB for Python");
            return;
        };

        let answer: Vec<usize> = answer
            .split_whitespace()
            .map(|word| word.parse().unwrap())
            .collect();
        let [count, version, numbers, known] = answer[..] else {
            panic!("{file}: {answer:?}");
        };
        assert_eq!(count, rows(&results, file), "{file}");
        assert_eq!(version, SCHEMA_VERSION as usize, "{file}");
        // Columns are read as numbers, also where a value has no bound (inf).
        assert_eq!(numbers, known, "{file}");
        assert!(known > 0, "{file}");
    }
}
