//! Text forms of latency histograms that other tools read, both of Gil Tene's HdrHistogram: the interval
//! log and the percentile table.

use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use echobench_clients::DurationHistogram;

/// Both forms show values in milliseconds; the histograms hold nanoseconds.
const NS_PER_MS: f64 = 1e6;

/// The first lines of an interval log whose times are relative to now.
#[must_use]
pub fn interval_log_header() -> String {
    let unix = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    format!(
        "#[Histogram log format version 1.3]\n\
         #[BaseTime: {:.3} (seconds since epoch)]\n\
         #[Values in nanoseconds; Interval_Max in milliseconds]\n\
         \"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n",
        unix.as_secs_f64()
    )
}

/// One line of an interval log: a histogram of the values recorded from `start` after the zero of the log,
/// for the time `length`, under the name `tag`.
#[must_use]
pub fn interval_line(
    tag: &str,
    start: Duration,
    length: Duration,
    histogram: &DurationHistogram,
) -> String {
    format!(
        "Tag={},{:.3},{:.3},{:.3},{}\n",
        written_tag(tag),
        start.as_secs_f64(),
        length.as_secs_f64(),
        histogram.max() as f64 / NS_PER_MS,
        histogram.to_base64()
    )
}

/// A tag as it can stand in an interval log, where it ends at a comma or white space; no two tags are written alike.
///
/// Blanks become `+`; a `+`, a comma and other white space become a percent sign and two hexadecimal digits for
/// each byte. The percent signs of a [tag](super::ConditionKey::tag) stay: in its names they are such codes already.
#[must_use]
pub fn written_tag(tag: &str) -> String {
    let mut written = String::with_capacity(tag.len());
    for letter in tag.chars() {
        match letter {
            ' ' => written.push('+'),
            '+' | ',' => push_code(&mut written, letter),
            _ if letter.is_whitespace() || letter.is_control() => push_code(&mut written, letter),
            _ => written.push(letter),
        }
    }
    written
}

fn push_code(text: &mut String, letter: char) {
    for byte in letter.encode_utf8(&mut [0; 4]).bytes() {
        write!(text, "%{byte:02X}").expect("writing to a string succeeds");
    }
}

/// The same in logs of earlier versions, in which different tags may be written alike.
pub(super) fn formerly_written_tag(tag: &str) -> String {
    tag.replace([',', ' ', '\t', '\n'], "_")
}

/// Reads a line of an interval log: the tag and the histogram; `None` for a line without either.
pub fn read_interval_line(line: &str) -> Result<Option<(&str, DurationHistogram)>, String> {
    let Some((tag, histogram)) = split_interval_line(line)? else {
        return Ok(None);
    };
    Ok(Some((tag, DurationHistogram::from_base64(histogram)?)))
}

/// The same without decoding the histogram, which takes most of the time.
pub(super) fn split_interval_line(line: &str) -> Result<Option<(&str, &str)>, String> {
    if line.is_empty() || line.starts_with(['#', '"']) {
        return Ok(None);
    }

    let fields: Vec<&str> = line.split(',').collect();
    let [tag, _start, _length, _max, histogram] = fields[..] else {
        return Err(format!("{} fields instead of 5", fields.len()));
    };
    let tag = tag.strip_prefix("Tag=").ok_or("no tag")?;
    Ok(Some((tag, histogram)))
}

/// The percentile table (`.hgrm`), with five steps to each halving of the distance to 100 %.
#[must_use]
pub fn percentile_table(histogram: &DurationHistogram) -> String {
    let mut text = format!(
        "{:>12} {:>14} {:>10} {:>14}\n\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    );

    let mut count = 0;
    let hdr = histogram.to_hdr();

    for step in hdr.iter_quantiles(5) {
        let value = step.value_iterated_to().min(histogram.max()) as f64 / NS_PER_MS;
        let quantile = step.quantile_iterated_to();
        count += step.count_since_last_iteration();
        let row = format!("{value:>12.6} {quantile:>2.12} {count:>10}");
        let odds = if quantile < 1.0 {
            format!(" {:>14.2}", 1.0 / (1.0 - quantile))
        } else {
            String::new()
        };
        writeln!(text, "{row}{odds}").expect("writing to a string succeeds");
    }

    writeln!(
        text,
        "#[Mean    = {:>12.6}, StdDeviation   = {:>12.6}]\n\
         #[Max     = {:>12.6}, Total count    = {:>12}]\n\
         #[Values in milliseconds; SignificantDigits = {}, Buckets = {}]",
        histogram.mean() / NS_PER_MS,
        hdr.stdev() / NS_PER_MS,
        histogram.max() as f64 / NS_PER_MS,
        histogram.len(),
        hdr.sigfig(),
        hdr.buckets()
    )
    .expect("writing to a string succeeds");

    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::ConditionKey;
    use crate::scenario::Placement;
    use echobench_clients::Driver;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    fn sample() -> DurationHistogram {
        (1..=1000).map(|value| value * 1_000_000).collect()
    }

    #[test]
    fn an_interval_log_reads_back() {
        let line = interval_line(
            "pool --workers 8",
            Duration::from_millis(1500),
            Duration::from_secs(2),
            &sample(),
        );

        let log = interval_log_header() + &line;
        let entries: Vec<_> = IntervalLogIterator::new(log.as_bytes())
            .map(Result::unwrap)
            .collect();
        let [LogEntry::BaseTime(_), LogEntry::Interval(interval)] = &entries[..] else {
            panic!("{entries:?}")
        };

        assert_eq!(
            interval.tag().map(|tag| tag.as_str()),
            Some("pool+--workers+8")
        );

        assert_eq!(interval.start_timestamp(), Duration::from_millis(1500));
        let text = interval.encoded_histogram();
        let read = DurationHistogram::from_base64(text).unwrap();

        assert_eq!(read.to_hdr(), sample().to_hdr());
        let all: Vec<_> = log
            .lines()
            .filter_map(|line| read_interval_line(line).unwrap())
            .collect();

        assert_eq!(all, [("pool+--workers+8", read)]);
        assert!(read_interval_line(&line[..line.len() / 2]).is_err());
    }

    #[test]
    fn no_two_tags_are_written_alike() {
        let condition = ConditionKey {
            scenario: "steady".to_owned(),
            placement: Placement::None,
            driver: Driver::Threads,
            clients: 8,
            load_percent: None,
            traffic: String::new(),
            step: None,
        };
        let names = [
            "a b",
            "a_b",
            "a,b",
            "a+b",
            "a%b",
            "a%2Cb",
            "a%20b",
            "a%252Cb",
            "a\tb",
            "a\u{a0}b",
            "a\u{2003}b",
            "a/b",
            "a%2Fb",
            "a",
            "a ",
            "+",
            "%",
            "50%/a",
        ];
        let at_half = ConditionKey {
            load_percent: Some(50),
            ..condition.clone()
        };
        let large = ConditionKey {
            traffic: "1 KiB".to_owned(),
            ..condition.clone()
        };
        let like_a_rate = ConditionKey {
            traffic: "50%".to_owned(),
            ..condition.clone()
        };
        let other = ConditionKey {
            scenario: "steady/none/8/threads".to_owned(),
            ..condition.clone()
        };
        let step = ConditionKey {
            step: Some(2),
            ..condition.clone()
        };
        let like_a_step = ConditionKey {
            traffic: "step2".to_owned(),
            ..condition.clone()
        };
        let second_step = ConditionKey {
            step: Some(2),
            ..like_a_step.clone()
        };
        let keys = [
            &condition,
            &at_half,
            &large,
            &like_a_rate,
            &other,
            &step,
            &like_a_step,
            &second_step,
        ];
        let tags: Vec<String> = keys
            .iter()
            .flat_map(|key| names.iter().map(|name| written_tag(&key.tag(name))))
            .collect();

        for (index, tag) in tags.iter().enumerate() {
            assert!(!tags[..index].contains(tag), "{tag}");
            let line = interval_line(tag, Duration::ZERO, Duration::ZERO, &sample());
            let (read, _) = read_interval_line(line.trim_end()).unwrap().unwrap();
            assert!(
                !tag.contains([',', ' ', '\n']) && read == written_tag(tag),
                "{tag}"
            );
        }
        assert_eq!(tags[0], "steady/none/8/threads/a+b");
        assert_eq!(
            written_tag(&large.tag("a b")),
            "steady/none/8/threads/1+KiB/a+b"
        );
    }

    #[test]
    fn a_percentile_table_ends_at_the_maximum() {
        let text = percentile_table(&sample());
        let last = text.lines().rfind(|line| !line.starts_with('#')).unwrap();
        let fields: Vec<_> = last.split_whitespace().collect();
        assert!(fields[0].starts_with("1000."), "{last}");
        assert_eq!(
            (fields[1], fields[2], fields.len()),
            ("1.000000000000", "1000", 3)
        );
    }
}
