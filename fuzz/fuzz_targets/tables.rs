//! Fuzz target: any text as the files of a results folder is parsed or refused; a resumed run leaves a
//! readable folder.
#![no_main]

use std::cell::RefCell;
use std::fs;

use echobench::render::Style;
use echobench::results::summary::summarize;
use echobench::results::{BlockRow, PlannedRows, Writer, read_blocks, read_slices, read_summary};
use echobench::run::tables::tables;
use echobench::scenario::Views;
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

thread_local! {
    static FOLDER: RefCell<TempDir> = RefCell::new(TempDir::with_prefix("fuzz").unwrap());
}

/// Separator between the files.
const BORDER: &str = "\n===\n";

/// A plan of blocks with one arm, of any number of slices.
struct OneArm;

impl PlannedRows for OneArm {
    fn arms(&self, first: &BlockRow) -> Option<Vec<String>> {
        Some(vec![first.model.clone()])
    }

    fn slices_of_each(&self, _first: &BlockRow, _driven: usize) -> Option<usize> {
        None
    }
}

fuzz_target!(|input: &[u8]| {
    let text = String::from_utf8_lossy(input);
    let mut parts = text.split(BORDER);
    let folder = FOLDER.with_borrow(|folder| folder.path().to_owned());
    for name in ["blocks.csv", "slices.csv", "latency.hlog", "summary.csv"] {
        fs::write(folder.join(name), parts.next().unwrap_or_default()).unwrap();
    }

    if let (Ok(Some(summary)), Ok(blocks)) = (read_summary(&folder), read_blocks(&folder)) {
        let _ = tables(&summary, &blocks, Style::Plain, &Views::default());
    }
    if let (Ok(slices), Ok(blocks)) = (read_slices(&folder), read_blocks(&folder)) {
        let views = Views::default();
        let summary = summarize(&slices, &blocks, &views);
        let _ = tables(&summary, &blocks, Style::Plain, &views);
    }

    let resumed = Writer::resume(&folder, &OneArm);
    if let Ok((writer, kept)) = resumed {
        drop(writer);
        let blocks = read_blocks(&folder).unwrap();
        assert_eq!(blocks.len(), kept.blocks.len());
        assert_eq!(read_slices(&folder).unwrap().len(), kept.slices.len());
    }
});
