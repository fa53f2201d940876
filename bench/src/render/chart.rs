//! Charts as SVG: lines with interval bands, and bars or points with whiskers. A chart is the same text in a file
//! and in a page.

use std::fmt::{self, Write as _};

use maud::{Markup, PreEscaped, html};

use super::axis::Axis;
use super::looks::{Look, Looks, Marker};

/// Width of a chart; on a phone it sets the size of the type too.
const WIDTH: f64 = 440.0;
const PLOT_HEIGHT: f64 = 200.0;
const TOP: f64 = 66.0;
const LEFT: f64 = 58.0;
/// Distance from one panel to the next below it.
const PANEL: f64 = PLOT_HEIGHT + 68.0;
/// Height of a line of small type.
const LINE: f64 = 14.0;
/// Height of a bar, its gap included.
const ROW: f64 = 20.0;
/// Approximate width of a letter in 12 px type.
const LETTER: f64 = 6.7;

pub(crate) const STYLE: &str = include_str!("chart.css");

/// Meaning of a mark in words: its tooltip, and its row in the table behind the chart.
#[derive(Clone, Debug)]
pub(crate) struct Tip {
    pub(crate) place: String,
    pub(crate) value: String,
}

impl fmt::Display for Tip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.value)
    }
}

/// Value in a chart.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mark {
    pub(crate) x: f64,
    pub(crate) y: f64,
    /// Ends of its interval.
    pub(crate) interval: Option<(f64, f64)>,
    /// Metric, if the value is one of the summary.
    pub(crate) metric: Option<&'static str>,
    /// Condition and arm, as their tag in the interval log.
    pub(crate) tag: String,
    /// None for a point that only shapes the line.
    pub(crate) tip: Option<Tip>,
    /// Drawn hollow: the value has a fault or is not valid, or belongs to the earlier of two runs.
    pub(crate) hollow: bool,
    /// Run that it belongs to, where a chart shows several.
    pub(crate) run: Option<&'static str>,
}

/// An arm in a chart: its marks, in stretches without missing values.
pub(crate) struct Series<'a> {
    pub(crate) arm: &'a str,
    pub(crate) stretches: Vec<Vec<Mark>>,
}

/// Title and notes of a chart.
pub(crate) struct Frame {
    /// Name of its file, without the extension.
    pub(crate) name: String,
    pub(crate) title: String,
    pub(crate) subtitle: String,
    /// Notes below the chart.
    pub(crate) notes: Vec<String>,
}

/// Lines over two axes, one for each series: a chart, or a panel of one.
pub(crate) struct LineChart<'a> {
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) series: Vec<Series<'a>>,
}

/// An arm and its value; none where it is missing.
pub(crate) type Bar<'a> = (&'a str, Option<Mark>);

/// Chart with a row for each arm, in named groups, and in each row the points of several runs.
pub(crate) struct PointChart<'a> {
    pub(crate) frame: Frame,
    pub(crate) axis: Axis,
    pub(crate) groups: Vec<(String, Vec<PointRow<'a>>)>,
}

/// The points of an arm, one below the other.
pub(crate) struct PointRow<'a> {
    pub(crate) arm: &'a str,
    pub(crate) marks: Vec<Mark>,
    /// Text beside the points.
    pub(crate) remark: String,
}

/// Chart of horizontal bars in named groups.
pub(crate) struct BarChart<'a> {
    pub(crate) frame: Frame,
    pub(crate) axis: Axis,
    pub(crate) groups: Vec<(String, Vec<Bar<'a>>)>,
}

/// A drawn chart.
pub(crate) struct Picture {
    /// Name of its file, without the extension.
    pub(crate) name: String,
    /// Title and subtitle in one line.
    pub(crate) title: String,
    pub(crate) width: f64,
    height: f64,
    body: Markup,
    /// Values of all marks that have one in words.
    pub(crate) values: Vec<Tip>,
}

impl Picture {
    pub(crate) fn new(
        frame: &Frame,
        (width, height): (f64, f64),
        values: Vec<Tip>,
        body: &Markup,
    ) -> Self {
        let body = html! {
            text.title x="12" y="20" font-size="14" font-weight="600" { (frame.title) }
            text.quiet x="12" y="37" font-size="11.5" fill="#59636e" { (frame.subtitle) }
            (body)
            @for (index, note) in frame.notes.iter().rev().enumerate() {
                text.quiet x="12" y=(px(height - 8.0 - LINE * index as f64)) font-size="10.5" fill="#59636e" { (note) }
            }
        };
        Picture {
            name: frame.name.clone(),
            title: format!("{}: {}", frame.title, frame.subtitle),
            width,
            height,
            body,
            values,
        }
    }

    /// SVG for a page, which has [`STYLE`].
    pub(crate) fn inline(&self) -> Markup {
        self.svg(false)
    }

    /// SVG for a file.
    pub(crate) fn file(&self) -> String {
        self.svg(true).into_string() + "\n"
    }

    fn svg(&self, alone: bool) -> Markup {
        let (width, height) = (px(self.width), px(self.height));
        let size = alone.then_some((&width, &height));
        // The parts of an image are hidden from screen readers; in a page the marks can be reached.
        let role = if alone { "img" } else { "group" };
        html! {
            svg.chart xmlns="http://www.w3.org/2000/svg" id=[(!alone).then_some(&self.name)]
                viewBox=(format!("0 0 {width} {height}")) width=[size.map(|size| size.0)] height=[size.map(|size| size.1)]
                role=(role) aria-label=(self.title) fill="#1f2328" font-size="12"
                font-family="system-ui, -apple-system, 'Segoe UI', 'Liberation Sans', Arial, sans-serif" {
                @if alone { style { (PreEscaped(STYLE)) } }
                rect.paper width=(width) height=(height) rx="6" fill="#ffffff" {}
                (self.body)
            }
        }
    }
}

/// Text of a coordinate; a tenth is finer than a pixel.
pub(crate) fn px(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").unwrap_or(&text).to_owned()
}

/// Approximate width of a text.
pub(crate) fn text_width(text: &str) -> f64 {
    text.chars().count() as f64 * LETTER
}

/// Name of an arm beside its line or bar: shortened where it would leave no room for the chart.
fn short_label(arm: &str) -> String {
    const LONGEST: usize = 26;
    if arm.chars().count() <= LONGEST {
        return arm.to_owned();
    }
    arm.chars().take(LONGEST - 1).chain(['…']).collect()
}

/// Charts with the same lower axis, one below the other.
pub(crate) fn stacked(frame: &Frame, panels: &[LineChart<'_>], looks: &Looks<'_>) -> Picture {
    let series = panels.iter().flat_map(|panel| &panel.series);
    let names = series.map(|series| text_width(&short_label(series.arm)));
    let right = WIDTH - names.fold(0.0, f64::max) - 20.0;
    let last = PANEL * panels.len().saturating_sub(1) as f64;
    let height = TOP + PLOT_HEIGHT + last + 42.0 + LINE * frame.notes.len() as f64;

    let body = html! {
        @for (index, panel) in panels.iter().enumerate() {
            g transform=[(index > 0).then(|| format!("translate(0 {})", px(PANEL * index as f64)))] {
                (panel.plot(right, looks))
            }
        }
    };
    let marks = panels.iter().flat_map(|panel| &panel.series);
    let marks = marks.flat_map(marks_of);
    let values = marks.filter_map(|mark| mark.tip.clone()).collect();
    Picture::new(frame, (WIDTH, height), values, &body)
}

impl LineChart<'_> {
    /// The axes, and the lines up to `right` with the names of the arms beside them.
    fn plot(&self, right: f64, looks: &Looks<'_>) -> Markup {
        let at = |mark: &Mark| {
            (
                LEFT + self.x.place(mark.x) * (right - LEFT),
                self.level(mark.y),
            )
        };

        html! {
            (self.axes(right))
            @for (series, label) in self.series.iter().zip(self.labels(at)) {
                @let look = looks.of(series.arm);
                g.series data-series=(series.arm) fill=(look.colour) stroke=(look.colour) {
                    @for stretch in &series.stretches {
                        @for band in self.bands(stretch, at) {
                            path d=(band) fill-opacity="0.16" stroke="none" {}
                        }
                        path d=(line(stretch.iter().map(at))) fill="none" stroke-width="2"
                            stroke-dasharray=(look.dash) stroke-linejoin="round" {}
                    }
                    @for mark in marks_of(series) { (dot(mark, at(mark), look)) }
                    @if let Some((from, y)) = label {
                        path d=(line([(from.0 + 5.0, from.1), (right + 8.0, y)].into_iter())) stroke-width="1"
                            stroke-opacity="0.5" fill="none" {}
                        text x=(px(right + 11.0)) y=(px(y + 4.0)) stroke="none" { (short_label(series.arm)) }
                    }
                }
            }
        }
    }

    /// Height of a value.
    fn level(&self, value: f64) -> f64 {
        TOP + PLOT_HEIGHT * (1.0 - self.y.place(value))
    }

    fn axes(&self, right: f64) -> Markup {
        let bottom = TOP + PLOT_HEIGHT;
        html! {
            text.quiet x="12" y=(px(TOP - 11.0)) font-size="11" fill="#59636e" { (self.y.label) }
            @for (value, text) in &self.y.ticks {
                @let y = self.level(*value);
                path.rule d=(line([(LEFT, y), (right, y)].into_iter())) stroke="#d1d9e0" stroke-width="1" {}
                text.quiet x=(px(LEFT - 6.0)) y=(px(y + 4.0)) text-anchor="end" font-size="11" fill="#59636e" { (text) }
            }
            @for (x, text) in self.lower_ticks(right) {
                path.rule d=(line([(x, bottom), (x, bottom + 4.0)].into_iter())) stroke="#59636e" stroke-width="1" {}
                text.quiet x=(px(x)) y=(px(bottom + 17.0)) text-anchor="middle" font-size="11" fill="#59636e" { (text) }
            }
            text.quiet x=(px(f64::midpoint(LEFT, right))) y=(px(bottom + 34.0)) text-anchor="middle" font-size="11"
                fill="#59636e" { (self.x.label) }
        }
    }

    /// Ticks of the lower axis, without those whose label would overlap the one before.
    fn lower_ticks(&self, right: f64) -> Vec<(f64, &str)> {
        let mut free = f64::NEG_INFINITY;
        let mut shown = Vec::new();

        for (value, text) in &self.x.ticks {
            let x = LEFT + self.x.place(*value) * (right - LEFT);
            let half = text_width(text) / 2.0;
            if x - half > free {
                free = x + half + 3.0;
                shown.push((x, text.as_str()));
            }
        }

        shown
    }

    /// Bands between the ends of the intervals, where neighbours have them.
    fn bands(&self, stretch: &[Mark], at: impl Fn(&Mark) -> (f64, f64)) -> Vec<String> {
        let parts = stretch.chunk_by(|a, b| a.interval.is_some() == b.interval.is_some());
        let band = |part: &[Mark]| {
            let ends = part
                .iter()
                .filter_map(|mark| Some((at(mark).0, mark.interval?)));
            let lower = ends.clone().map(|(x, (low, _))| (x, self.level(low)));
            let upper = ends
                .clone()
                .rev()
                .map(|(x, (_, high))| (x, self.level(high)));
            (ends.clone().count() > 1).then(|| line(lower.chain(upper)) + "Z")
        };
        parts.filter_map(band).collect()
    }

    /// End of each line, and the height of its name such that no two names overlap.
    fn labels(&self, at: impl Fn(&Mark) -> (f64, f64)) -> Vec<Option<((f64, f64), f64)>> {
        let ends = self
            .series
            .iter()
            .map(|series| series.stretches.last()?.last().map(&at));
        let ends: Vec<Option<(f64, f64)>> = ends.collect();

        let mut order: Vec<usize> = (0..ends.len())
            .filter(|&index| ends[index].is_some())
            .collect();
        let height = |index: usize| ends[index].map_or(0.0, |end| end.1);
        order.sort_by(|&a, &b| height(a).total_cmp(&height(b)));

        // Names are pushed down from the one above, then up from the lower edge.
        let mut heights: Vec<f64> = order.iter().map(|&index| height(index)).collect();
        for index in 1..heights.len() {
            heights[index] = heights[index].max(heights[index - 1] + LINE);
        }
        let mut limit = TOP + PLOT_HEIGHT + 4.0;
        for height in heights.iter_mut().rev() {
            *height = height.min(limit);
            limit = *height - LINE;
        }

        let mut labels = vec![None; ends.len()];
        for (index, height) in order.into_iter().zip(heights) {
            labels[index] = ends[index].map(|end| (end, height));
        }
        labels
    }
}

/// Layout of a chart with a row for each arm, in named groups.
struct RowLayout {
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
}

impl RowLayout {
    /// Layout for groups of these arms.
    fn new<'a>(groups: impl Iterator<Item = Vec<&'a str>>) -> Self {
        let groups: Vec<Vec<&str>> = groups.collect();
        let names = groups
            .iter()
            .flatten()
            .map(|arm| text_width(&short_label(arm)));
        let rows: usize = groups.iter().map(|arms| arms.len() + 1).sum();
        let top = TOP - 16.0;
        RowLayout {
            left: names.fold(0.0, f64::max) + 24.0,
            right: WIDTH - 78.0,
            top,
            bottom: top + ROW * rows as f64 + 4.0,
        }
    }

    /// Place of a value from left to right.
    fn at(&self, axis: &Axis, value: f64) -> f64 {
        self.left + axis.place(value) * (self.right - self.left)
    }

    /// Upper edges of the rows, headings of groups included.
    fn edges(&self) -> impl Iterator<Item = f64> {
        let top = self.top;
        (0_u32..).map(move |row| top + ROW * f64::from(row))
    }

    fn axis(&self, axis: &Axis) -> Markup {
        html! {
            @for (value, text) in &axis.ticks {
                @let x = self.at(axis, *value);
                path.rule d=(line([(x, self.top), (x, self.bottom)].into_iter())) stroke="#d1d9e0" stroke-width="1" {}
                text.quiet x=(px(x)) y=(px(self.bottom + 15.0)) text-anchor="middle" font-size="11" fill="#59636e" {
                    (text)
                }
            }
            text.quiet x=(px(f64::midpoint(self.left, self.right))) y=(px(self.bottom + 32.0)) text-anchor="middle"
                font-size="11" fill="#59636e" { (axis.label) }
        }
    }

    fn heading(name: &str, y: f64) -> Markup {
        html! { text x="12" y=(px(y + 14.0)) font-weight="600" { (name) } }
    }

    /// Name of an arm, left of its row.
    fn name(&self, arm: &str, y: f64) -> Markup {
        html! { text x=(px(self.left - 6.0)) y=(px(y + 14.0)) text-anchor="end" { (short_label(arm)) } }
    }

    fn picture(&self, frame: &Frame, values: Vec<Tip>, body: &Markup) -> Picture {
        let height = self.bottom + 42.0 + LINE * frame.notes.len() as f64;
        Picture::new(frame, (WIDTH, height), values, body)
    }
}

impl BarChart<'_> {
    pub(crate) fn draw(&self, looks: &Looks<'_>) -> Picture {
        let groups = self.groups.iter();
        let layout = RowLayout::new(groups.map(|(_, bars)| bars.iter().map(|bar| bar.0).collect()));
        let mut edges = layout.edges();
        let mut next = || edges.next().unwrap_or_default();

        let body = html! {
            (layout.axis(&self.axis))
            @for (group, bars) in &self.groups {
                (RowLayout::heading(group, next()))
                @for (arm, mark) in bars {
                    (self.bar(arm, mark.as_ref(), next(), looks.of(arm), &layout))
                }
            }
        };
        let bars = self.groups.iter().flat_map(|(_, bars)| bars);
        let values = bars.filter_map(|(_, mark)| mark.as_ref()?.tip.clone());
        layout.picture(&self.frame, values.collect(), &body)
    }

    fn bar(
        &self,
        arm: &str,
        mark: Option<&Mark>,
        y: f64,
        look: Look,
        layout: &RowLayout,
    ) -> Markup {
        let at = |value: f64| layout.at(&self.axis, value);
        let start = at(0.0);
        let name = layout.name(arm, y);
        let Some(mark) = mark else {
            return html! {
                g.series data-series=(arm) {
                    (name)
                    text.quiet x=(px(start + 6.0)) y=(px(y + 14.0)) font-size="11" fill="#59636e" { "no value" }
                }
            };
        };

        let end = at(mark.y);
        let ends = mark.interval.map(|(low, high)| (at(low), at(high)));
        let farthest = ends.map_or(end, |(_, high)| end.max(high));
        let opacity = if mark.hollow { "0.25" } else { "0.85" };

        html! {
            g.series data-series=(arm) {
                (name)
                (mark_group(mark, &html! {
                    rect x=(px(start)) y=(px(y + 3.0)) width=(px(end - start)) height=(px(ROW - 6.0)) fill=(look.colour)
                        fill-opacity=(opacity) stroke=(look.colour) {}
                    @if let Some(ends) = ends { (whisker(ends, y + ROW / 2.0)) }
                }))
                text x=(px(farthest + 6.0)) y=(px(y + 14.0)) font-size="11" { (self.axis.unit.show(mark.y)) }
            }
        }
    }
}

impl PointChart<'_> {
    pub(crate) fn draw(&self, looks: &Looks<'_>) -> Picture {
        let groups = self.groups.iter();
        let layout =
            RowLayout::new(groups.map(|(_, rows)| rows.iter().map(|row| row.arm).collect()));
        let mut edges = layout.edges();
        let mut next = || edges.next().unwrap_or_default();

        let body = html! {
            (layout.axis(&self.axis))
            @for (group, rows) in &self.groups {
                (RowLayout::heading(group, next()))
                @for row in rows { (self.row(row, next(), looks.of(row.arm), &layout)) }
            }
        };
        let rows = self.groups.iter().flat_map(|(_, rows)| rows);
        let values = rows.flat_map(|row| &row.marks);
        let values = values.filter_map(|mark| mark.tip.clone());
        layout.picture(&self.frame, values.collect(), &body)
    }

    fn row(&self, row: &PointRow<'_>, y: f64, look: Look, layout: &RowLayout) -> Markup {
        let at = |value: f64| layout.at(&self.axis, value);
        let step = ROW / (row.marks.len() + 1) as f64;
        let placed = row.marks.iter().zip(1_u32..);
        let placed = placed.map(|(mark, place)| (mark, y + step * f64::from(place)));

        html! {
            g.series data-series=(row.arm) {
                (layout.name(row.arm, y))
                g fill=(look.colour) stroke=(look.colour) { @for (mark, middle) in placed {
                    @let ends = mark.interval.map(|(low, high)| (at(low), at(high)));
                    (mark_group(mark, &html! {
                        @if let Some(ends) = ends { (whisker(ends, middle)) }
                        (marker(mark, (at(mark.y), middle), look))
                    }))
                } }
                text x=(px(layout.right + 8.0)) y=(px(y + 14.0)) font-size="11" { (row.remark) }
            }
        }
    }
}

/// The interval of a value beside it, as a line with ends.
fn whisker((low, high): (f64, f64), middle: f64) -> Markup {
    let upright = |x: f64| line([(x, middle - 4.0), (x, middle + 4.0)].into_iter());
    let across = line([(low, middle), (high, middle)].into_iter());
    html! {
        path.whisker d=(format!("{across}{}{}", upright(low), upright(high))) stroke="#1f2328" stroke-width="1.2"
            fill="none" {}
    }
}

/// Marks of a series that have a tooltip.
fn marks_of<'a>(series: &'a Series<'_>) -> impl Iterator<Item = &'a Mark> {
    let marks = series.stretches.iter().flatten();
    marks.filter(|mark| mark.tip.is_some())
}

/// SVG path through these points.
fn line(points: impl Iterator<Item = (f64, f64)>) -> String {
    let mut path = String::new();
    for (x, y) in points {
        let step = if path.is_empty() { 'M' } else { 'L' };
        write!(path, "{step}{} {}", px(x), px(y)).expect("writing to a string succeeds");
    }
    path
}

/// SVG group that carries a mark's value, for scripts and tests, and its tooltip.
fn mark_group(mark: &Mark, inner: &Markup) -> Markup {
    let ends = mark.interval.filter(|_| mark.metric.is_some());
    html! {
        g.mark role="img" data-arm=(mark.tag) data-run=[mark.run] data-metric=[mark.metric] data-value=[mark.metric.map(|_| mark.y)]
            data-low=[ends.map(|ends| ends.0)] data-high=[ends.map(|ends| ends.1)] {
            @if let Some(tip) = &mark.tip { title { (tip) } }
            (inner)
        }
    }
}

/// A value as the marker of its arm at a point.
fn dot(mark: &Mark, at: (f64, f64), look: Look) -> Markup {
    mark_group(mark, &marker(mark, at, look))
}

/// The marker of an arm at a point, hollow or filled.
fn marker(mark: &Mark, (x, y): (f64, f64), look: Look) -> Markup {
    let path = match look.marker {
        Marker::Circle => format!(
            "M{} {}a3.6 3.6 0 1 0 7.2 0a3.6 3.6 0 1 0 -7.2 0Z",
            px(x - 3.6),
            px(y)
        ),
        Marker::Square => format!("M{} {}h6.4v6.4h-6.4Z", px(x - 3.2), px(y - 3.2)),
        Marker::Triangle => format!("M{} {}l4.2 7h-8.4Z", px(x), px(y - 4.2)),
        Marker::Diamond => format!("M{} {}l4.4 4.4l-4.4 4.4l-4.4 -4.4Z", px(x), px(y - 4.4)),
        Marker::Wedge => format!("M{} {}l4.2 -7h-8.4Z", px(x), px(y + 4.2)),
    };

    html! {
        @if mark.hollow {
            path.paper d=(path) fill="#ffffff" stroke-width="1.6" {}
        } @else {
            path d=(path) stroke="none" {}
        }
    }
}

/// Marks in the order of the lower axis, as stretches that end where one of `all` has no mark.
pub(crate) fn split_at_gaps(mut marks: Vec<Mark>, all: &[f64]) -> Vec<Vec<Mark>> {
    let mut stretches = vec![Vec::new()];

    for x in all {
        let place = marks.iter().position(|mark| (mark.x - x).abs() < 1e-9);
        match (place, stretches.last_mut()) {
            (Some(place), Some(stretch)) => stretch.push(marks.swap_remove(place)),
            _ => stretches.push(Vec::new()),
        }
    }

    stretches.retain(|stretch| !stretch.is_empty());
    stretches
}
