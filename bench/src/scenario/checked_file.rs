//! TOML files of users, of which all faults are named at once, each with its line and its field.

use std::fmt;
use std::mem;
use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue, Deserializer, Error};

/// A fault beyond the type of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The field, as in `traffic.work`, or `load[2].weight` in the second table of a list.
    pub(super) field: String,
    problem: String,
}

impl Fault {
    pub(crate) fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Fault {
            field: field.into(),
            problem: problem.into(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.problem.replace('\n', "; "))
    }
}

/// A file, and the faults found so far.
pub(crate) struct CheckedFile<'a> {
    name: &'a str,
    text: &'a str,
    document: Spanned<DeTable<'a>>,
    /// Each with its line.
    faults: Vec<(usize, String)>,
    /// The fields that were left out because of a fault.
    removed: Vec<String>,
}

impl<'a> CheckedFile<'a> {
    /// Reads the text of a file. Fails if it is no TOML.
    pub(crate) fn parse(name: &'a str, text: &'a str) -> anyhow::Result<Self> {
        let (document, syntax) = DeTable::parse_recoverable(text);
        let mut file = CheckedFile {
            name,
            text,
            document,
            faults: Vec::new(),
            removed: Vec::new(),
        };

        for error in &syntax {
            let line = file.line(error.span().map_or(0, |span| span.start));
            let quoted = text.lines().nth(line - 1).unwrap_or_default().trim();
            let problem = in_one_line(error);
            file.faults
                .push((line, format!("line {line} ('{quoted}'): {problem}")));
        }
        file.finish_if_faulty()
    }

    /// Reads a value that needs no field. A field that cannot be read is a fault and is left out, so that all
    /// others are read.
    pub(crate) fn deserialize<T: Deserialize<'a>>(&mut self) -> T {
        let mut document = self.document.clone();
        loop {
            let error = match T::deserialize(Deserializer::from(document.clone())) {
                Ok(value) => return value,
                Err(error) => error,
            };

            let span = error.span().unwrap_or(0..0);
            let removed = remove(document.get_mut(), &span);
            removed.expect("a value without any field can be read");
            // The tables of a list keep the numbers that they have in the file.
            let field = remove(self.document.clone().get_mut(), &span).unwrap_or_default();
            let missing = missing_field(&error).map(|name| format!("{field}.{name}"));
            // The field may be missing because it was left out.
            if missing.is_none_or(|field| !self.removed.contains(&field)) {
                let line = self.line(span.start);
                let problem = in_one_line(&error);
                self.faults
                    .push((line, format!("line {line}, {field}: {problem}")));
            }
            self.removed.push(field);
        }
    }

    /// Whether the file has a field, as in `quick.gap`.
    pub(crate) fn has(&self, field: &str) -> bool {
        span_of(self.document.get_ref(), field).is_some()
    }

    /// Adds a fault of the value, unless its field could not even be read.
    pub(crate) fn add(&mut self, fault: &Fault) {
        let is_known = |removed: &String| {
            let inner = |long: &str, short: &str| {
                long.strip_prefix(short)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
            };
            inner(removed, &fault.field) || inner(&fault.field, removed)
        };
        if self.removed.iter().any(is_known) {
            return;
        }

        let entry = match span_of(self.document.get_ref(), &fault.field) {
            Some(span) => {
                let line = self.line(span.start);
                (line, format!("line {line}, {fault}"))
            }
            None => (0, fault.to_string()),
        };
        if !self.faults.contains(&entry) {
            self.faults.push(entry);
        }
    }

    /// Fails if there are faults, naming all of them in the order of their lines.
    pub(crate) fn finish(self) -> anyhow::Result<()> {
        self.finish_if_faulty().map(drop)
    }

    fn finish_if_faulty(mut self) -> anyhow::Result<Self> {
        if self.faults.is_empty() {
            return Ok(self);
        }
        self.faults.sort();
        let lines = self.faults.iter();
        let lines: Vec<String> = lines
            .map(|(_, text)| format!("{}, {text}", self.name))
            .collect();
        Err(anyhow::anyhow!("{}", lines.join("\n")))
    }

    /// Number of the line with this byte.
    fn line(&self, at: usize) -> usize {
        let ends = self.text.match_indices('\n');
        ends.take_while(|(end, _)| *end < at).count() + 1
    }
}

fn in_one_line(error: &Error) -> String {
    error.message().replace('\n', "; ")
}

/// The name of the field that is missing, if that is the error.
fn missing_field(error: &Error) -> Option<&str> {
    let (_, rest) = error.message().split_once("missing field `")?;
    rest.split('`').next()
}

/// Removes the innermost field that contains a span, and returns its name, as in `traffic.work`, or
/// `load[2].weight` in the second table of a list.
fn remove(table: &mut DeTable<'_>, span: &Range<usize>) -> Option<String> {
    let key = table.iter().find_map(|(key, value)| {
        let is_here = contains(&key.span(), span) || is_inside(value, span);
        is_here.then(|| key.clone())
    });
    let key = key.or_else(|| table.keys().next().cloned())?;

    let name = key.get_ref().to_string();
    if !contains(&key.span(), span)
        && let Some(value) = table.get_mut(&key)
        && let Some(inner) = remove_within(value, span)
    {
        return Some(name + &inner);
    }
    table.remove(&key);
    Some(name)
}

/// Removes what contains a span inside of a value; `None` if that is the value itself.
fn remove_within(value: &mut Spanned<DeValue<'_>>, span: &Range<usize>) -> Option<String> {
    match value.get_mut() {
        DeValue::Table(inner) => {
            let mut fields = inner.iter();
            let is_field =
                fields.any(|(key, value)| contains(&key.span(), span) || is_inside(value, span));
            let field = is_field.then(|| remove(inner, span)).flatten()?;
            Some(format!(".{field}"))
        }
        // A value of a list is not removed: the list is one field.
        DeValue::Array(tables) if tables.iter().all(|one| one.get_ref().is_table()) => {
            let index = tables.iter().position(|table| is_inside(table, span))?;
            let place = format!("[{}]", index + 1);
            if let Some(field) = remove_within(tables.get_mut(index)?, span) {
                return Some(place + &field);
            }
            let all = mem::replace(tables, DeArray::new()).into_iter().enumerate();
            let others = all.filter(|(nth, _)| *nth != index);
            *tables = others.map(|(_, table)| table).collect();
            Some(place)
        }
        _ => None,
    }
}

fn contains(outer: &Range<usize>, inner: &Range<usize>) -> bool {
    outer.start <= inner.start && inner.end <= outer.end
}

/// Whether a span lies in a value. Tables that are written with a header have the span of the header only.
fn is_inside(value: &Spanned<DeValue<'_>>, span: &Range<usize>) -> bool {
    contains(&value.span(), span)
        || match value.get_ref() {
            DeValue::Table(table) => table
                .iter()
                .any(|(key, value)| contains(&key.span(), span) || is_inside(value, span)),
            DeValue::Array(values) => values.iter().any(|value| is_inside(value, span)),
            _ => false,
        }
}

/// The place of a field, as in `traffic.work` or `load[2].weight`; `None` if the file has it not.
fn span_of(table: &DeTable<'_>, field: &str) -> Option<Range<usize>> {
    let (first, rest) = field.split_once('.').unwrap_or((field, ""));
    let (name, number) = match first.strip_suffix(']').and_then(|it| it.split_once('[')) {
        Some((name, number)) => (name, Some(number.parse::<usize>().ok()?)),
        None => (first, None),
    };

    let (key, value) = table.get_key_value(name)?;
    let value = match number {
        None => value,
        Some(number) => value.get_ref().as_array()?.get(number.checked_sub(1)?)?,
    };
    if !rest.is_empty() {
        return span_of(value.get_ref().as_table()?, rest);
    }
    Some(number.map_or_else(|| key.span(), |_| value.span()))
}
