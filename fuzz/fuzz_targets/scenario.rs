//! Fuzz target: any text as a scenario is parsed, or refused with a line for each fault; a parsed one can be recorded.
#![no_main]

use std::cell::RefCell;
use std::fs;

use echobench::scenario::Scenario;
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

thread_local! {
    static FOLDER: RefCell<TempDir> = RefCell::new(TempDir::with_prefix("fuzz").unwrap());
}

fuzz_target!(|input: &[u8]| {
    let path = FOLDER.with_borrow(|folder| folder.path().join("fuzz.toml"));
    fs::write(&path, input).unwrap();
    match Scenario::find(path.to_str().unwrap()) {
        Err(error) => {
            let text = format!("{error:#}");
            let named = |line: &str| line.contains(path.to_str().unwrap());
            assert!(text.lines().all(named), "{text}");
        }
        Ok(scenario) => {
            scenario.arms().unwrap();
            let recorded = serde_json::to_string(&scenario).unwrap();
            let read: Scenario = serde_json::from_str(&recorded).unwrap();
            assert_eq!(serde_json::to_string(&read).unwrap(), recorded);
        }
    }
});
