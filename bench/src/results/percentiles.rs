//! Percentiles of latency of a results folder, taken from its interval log while that is read.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::iter;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use echobench_clients::DurationHistogram;
use rayon::prelude::*;

use super::histogram_log::{formerly_written_tag, split_interval_line, written_tag};
use super::read::check_partial_line;
use super::{BlockRow, LATENCY};

/// Lines that are decoded side by side. The histograms of all lines of a large folder would take gigabytes.
const LINES_AT_ONCE: usize = 256;

/// Percentiles of latency of a run: for each arm, their values in the measured blocks.
pub struct BlockPercentiles {
    quantiles: Vec<f64>,
    /// By the tags of the arms.
    arms: BTreeMap<String, ArmPercentiles>,
}

/// The same of one arm.
struct ArmPercentiles {
    /// Requests without a latency in each block, which count as slower than all others.
    lost: Vec<u64>,
    /// Blocks whose lines were read.
    read: usize,
    /// Values in nanoseconds, a list for each of the quantiles.
    values: Vec<Vec<f64>>,
}

impl BlockPercentiles {
    /// The percentiles of an arm, by its [`ConditionKey::tag`](super::ConditionKey::tag): each as a share, with its
    /// values in nanoseconds of the blocks that have enough requests for it.
    pub fn of(&self, tag: &str) -> impl Iterator<Item = (f64, &[f64])> {
        let values = self.arms.get(tag).into_iter().flat_map(|arm| &arm.values);
        let values = values.map(Vec::as_slice).chain(iter::repeat(&[][..]));
        self.quantiles.iter().copied().zip(values)
    }

    /// Without values yet, for these blocks.
    fn new(quantiles: Vec<f64>, blocks: &[BlockRow]) -> Self {
        let mut arms: BTreeMap<String, ArmPercentiles> = BTreeMap::new();
        for row in blocks.iter().filter(|row| row.is_ok()) {
            let arm = arms.entry(row.condition().tag(&row.model));
            let arm = arm.or_insert_with(|| ArmPercentiles {
                lost: Vec::new(),
                read: 0,
                values: vec![Vec::new(); quantiles.len()],
            });
            arm.lost.push(row.failed + row.unsent);
        }
        BlockPercentiles { quantiles, arms }
    }

    /// The tag of each arm by its forms in a log.
    fn tags_in_log(&self) -> BTreeMap<String, String> {
        // A resumed run may have lines of an earlier version. Where both forms of different tags are alike, the present
        // one counts: earlier versions refused such arms.
        let tags = || self.arms.keys();
        let former = tags().map(|tag| (formerly_written_tag(tag), tag.clone()));
        let present = tags().map(|tag| (written_tag(tag), tag.clone()));
        former.chain(present).collect()
    }
}

/// Percentiles of a results folder, for shares in ascending order; without values if it has no interval log.
pub fn read_percentiles(
    folder: &Path,
    blocks: &[BlockRow],
    quantiles: Vec<f64>,
) -> anyhow::Result<BlockPercentiles> {
    let mut percentiles = BlockPercentiles::new(quantiles, blocks);
    if !folder.join(LATENCY).exists() {
        return Ok(percentiles);
    }

    let tags = percentiles.tags_in_log();
    let mut log = IntervalLog::open(folder)?;
    loop {
        let lines = log.next_lines()?;
        if lines.is_empty() {
            return Ok(percentiles);
        }

        // In the order of the lines: their places are those of the blocks.
        let mut entries = Vec::new();
        for (number, line) in &lines {
            let entry = split_interval_line(line).map_err(|error| log.fault(*number, &error))?;
            let Some((tag, histogram)) = entry else {
                continue;
            };
            // A block is written here before its rows are: after a kill the last one may have none.
            let tag = tags.get(tag);
            let arm = tag.and_then(|tag| percentiles.arms.get_mut(tag));
            let lost = arm.and_then(ArmPercentiles::next_lost);
            entries.push((*number, tag.zip(lost), histogram));
        }

        let values = |&(number, block, histogram): &(usize, Option<(_, u64)>, &str)| {
            let histogram = DurationHistogram::from_base64(histogram)
                .map_err(|error| log.fault(number, &error))?;
            let lost = block.map_or(0, |(_, lost)| lost);
            Ok(histogram.quantiles(lost, &percentiles.quantiles).collect())
        };
        let values: anyhow::Result<Vec<Vec<u64>>> = entries.par_iter().map(values).collect();
        for ((_, block, _), values) in entries.into_iter().zip(values?) {
            let tag = block.map(|(tag, _)| tag);
            if let Some(arm) = tag.and_then(|tag: &String| percentiles.arms.get_mut(tag)) {
                arm.add(&values);
            }
        }
    }
}

impl ArmPercentiles {
    /// The lost requests of the block whose line comes next; `None` after the last block.
    fn next_lost(&mut self) -> Option<u64> {
        let lost = self.lost.get(self.read).copied();
        self.read += 1;
        lost
    }

    fn add(&mut self, values: &[u64]) {
        for (list, value) in self.values.iter_mut().zip(values) {
            list.push(*value as f64);
        }
    }
}

/// The interval log of a results folder, read some lines at a time.
struct IntervalLog<'a> {
    folder: &'a Path,
    path: PathBuf,
    reader: BufReader<File>,
    /// Lines read so far.
    lines: usize,
}

impl<'a> IntervalLog<'a> {
    fn open(folder: &'a Path) -> anyhow::Result<Self> {
        let path = folder.join(LATENCY);
        let file = File::open(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(IntervalLog {
            folder,
            path,
            reader: BufReader::new(file),
            lines: 0,
        })
    }

    /// The next lines with their numbers; none at the end. A partial line that a killed run has left there is
    /// left out.
    fn next_lines(&mut self) -> anyhow::Result<Vec<(usize, String)>> {
        let mut lines = Vec::new();
        while lines.len() < LINES_AT_ONCE {
            let mut line = String::new();
            let read = self.reader.read_line(&mut line);
            read.with_context(|| format!("cannot read {}", self.path.display()))?;
            if line.is_empty() {
                break;
            }

            self.lines += 1;
            if line.pop() != Some('\n') {
                check_partial_line(self.folder, &self.path, self.lines)?;
                break;
            }
            lines.push((self.lines, line));
        }
        Ok(lines)
    }

    fn fault(&self, line: usize, error: &str) -> anyhow::Error {
        anyhow!("{}, line {line}: {error}", self.path.display())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;
    use echobench_clients::DurationHistogram;

    use crate::results::histogram_log::{interval_line, interval_log_header};

    const NAMES: [&str; 4] = ["a b", "a_b", "a,b", "a+b"];

    fn blocks(names: &[&str]) -> Vec<BlockRow> {
        let row = |name: &&str| BlockRow {
            scenario: "steady".to_owned(),
            model: (*name).to_owned(),
            ..BlockRow::default()
        };
        names.iter().map(row).collect()
    }

    /// Values that are as large as the position of an arm says.
    fn values(position: usize) -> DurationHistogram {
        [position as u64 + 1; 10].into_iter().collect()
    }

    fn lines(blocks: &[BlockRow]) -> String {
        let lines = blocks.iter().enumerate().map(|(position, row)| {
            let tag = row.condition().tag(&row.model);
            let second = Duration::from_secs(1);
            interval_line(&tag, Duration::ZERO, second, &values(position))
        });
        lines.collect()
    }

    /// The medians that are read for each of the `blocks`.
    fn read_back(log: &str, blocks: &[BlockRow]) -> Vec<Vec<f64>> {
        let folder = tempfile::TempDir::new().unwrap();
        let log = interval_log_header() + log;
        fs::write(folder.path().join(LATENCY), log).unwrap();
        let percentiles = read_percentiles(folder.path(), blocks, vec![0.5]).unwrap();
        let medians = |row: &BlockRow| {
            let tag = row.condition().tag(&row.model);
            percentiles.of(&tag).next().unwrap().1.to_vec()
        };
        blocks.iter().map(medians).collect()
    }

    #[test]
    fn arms_with_similar_names_have_their_own_histograms() {
        let blocks = blocks(&NAMES);
        let log = lines(&blocks);
        assert_eq!(read_back(&log, &blocks), [[1.0], [2.0], [3.0], [4.0]]);
    }

    /// Earlier versions wrote blanks and commas alike; their runs may be resumed by this one.
    #[test]
    fn logs_of_earlier_versions_are_read() {
        let two_blocks = blocks(&["pool --workers 8", "thread", "pool --workers 8"]);
        let (first, second) = two_blocks.split_at(2);
        let former = lines(first).replace("pool+--workers+8", "pool_--workers_8");
        assert_ne!(former, lines(first));
        let counts = read_back(&(former + &lines(second)), &two_blocks);
        assert_eq!(counts, [vec![1.0, 1.0], vec![2.0], vec![1.0, 1.0]]);
    }
}
