//! Costs of the analysis, from rows to verdicts, and the time that several threads save.

use std::hint::black_box;
use std::path::Path;

use criterion::{Criterion, SamplingMode};
use echobench::results::summary::summarize;
use echobench::results::{read_blocks, read_slices};
use echobench::scenario::Views;
use echobench::stats::{holm, sign_interval};
use hdrhistogram::Histogram;
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::common;

/// A run of the committed results, of 13,608 slices.
const RUN: &str = "../results/2026-11-21-eddd0ca-xeon-2cpu-kvm";
/// The number of client processes of the largest condition.
const HISTOGRAMS: u64 = 256;
const SAMPLES: usize = 10_000;

pub(crate) fn analysis(criterion: &mut Criterion) {
    let mut group = common::group(criterion, "analysis");
    group.sampling_mode(SamplingMode::Flat).sample_size(10);

    let pools = [("serial", pool(1)), ("rayon", pool(0))];
    let histograms: Vec<_> = (0..HISTOGRAMS).map(latencies).collect();
    for (name, pool) in &pools {
        group.bench_function(format!("merge/{HISTOGRAMS}/{name}"), |bencher| {
            bencher.iter(|| pool.install(|| merge(&histograms)));
        });
    }

    let mut random = fastrand::Rng::with_seed(1);
    for blocks in [21, 1000] {
        let values: Vec<f64> = (0..blocks).map(|_| random.f64()).collect();
        group.bench_function(format!("sign_interval/{blocks}"), |bencher| {
            bencher.iter(|| sign_interval(black_box(&values), 0.95));
        });
    }

    let p: Vec<f64> = (0..100).map(|_| random.f64()).collect();
    group.bench_function("holm/100", |bencher| {
        bencher.iter(|| holm(black_box(&p), 0.05));
    });

    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(RUN);
    let slices = read_slices(&folder).expect("it is committed");
    let blocks = read_blocks(&folder).expect("it is committed");
    group.bench_function("summary", |bencher| {
        bencher.iter(|| summarize(&slices, &blocks, &Views::default()));
    });
    group.finish();
}

/// A pool of threads; 0 stands for one per CPU.
fn pool(threads: usize) -> ThreadPool {
    let builder = ThreadPoolBuilder::new().num_threads(threads);
    builder.build().expect("threads can be started")
}

fn empty() -> Histogram<u64> {
    Histogram::new(3).expect("three digits are allowed")
}

/// Latencies from a microsecond to some hundred milliseconds, equally many in each octave.
fn latencies(seed: u64) -> Histogram<u64> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut histogram = empty();
    for _ in 0..SAMPLES {
        let ns = 1 << random.u32(10..28);
        histogram += ns + random.u64(..ns);
    }
    histogram
}

fn merge(histograms: &[Histogram<u64>]) -> Histogram<u64> {
    histograms
        .par_iter()
        .fold(empty, |sum, histogram| sum + histogram)
        .reduce(empty, |sum, other| sum + &other)
}
