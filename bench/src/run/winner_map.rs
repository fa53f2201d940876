//! Winner map: the leading arms of each scenario by number of clients; a tie shows several names.

use maud::{Markup, html};

use super::verdict::{Ranking, RankingKind};
use crate::render::chart::{Frame, Picture, Tip, px, text_width};
use crate::render::looks::{Looks, short};
use crate::render::units;

/// Width and height of a cell, its gap included.
const CELL: (f64, f64) = (84.0, 64.0);
const GAP: f64 = 4.0;
const TOP: f64 = 68.0;
/// Names that fit into a cell.
const NAMES: usize = 4;

/// A row of the map: its name and its rankings.
pub(super) type MapRow<'a> = (String, &'a [Ranking<'a>]);

/// The map over all scenarios; none without a closed loop.
pub(super) fn winner_map(rows: &[MapRow<'_>], looks: &Looks<'_>) -> Option<Picture> {
    let all = rows.iter().flat_map(|(_, group)| group.iter());
    let mut columns: Vec<u32> = all.map(|ranking| ranking.condition.clients).collect();
    columns.sort_unstable();
    columns.dedup();
    if columns.is_empty() {
        return None;
    }

    let names = rows.iter().map(|(name, _)| text_width(name));
    let left = names.fold(60.0, f64::max) + 18.0;
    let width = (left + columns.len() as f64 * CELL.0 + 10.0).max(400.0);
    let bottom = TOP + rows.len() as f64 * CELL.1;
    let x = |column: usize| left + column as f64 * CELL.0;

    let body = html! {
        text.quiet x="12" y=(px(TOP - 9.0)) font-size="11" fill="#59636e" { "clients" }
        @for (column, clients) in columns.iter().enumerate() {
            text.quiet x=(px(x(column) + (CELL.0 - GAP) / 2.0)) y=(px(TOP - 9.0)) text-anchor="middle" font-size="11"
                fill="#59636e" { (units::count(u64::from(*clients))) }
        }
        @for (index, (name, group)) in rows.iter().enumerate() {
            @let y = TOP + index as f64 * CELL.1;
            text x="12" y=(px(y + CELL.1 / 2.0 + 2.0)) { (name) }
            @for ranking in *group {
                @let column = columns.iter().position(|clients| *clients == ranking.condition.clients);
                (cell(ranking, x(column.unwrap_or(0)), y, looks))
            }
        }
    };

    let frame = Frame {
        name: "winners".to_owned(),
        title: "Who serves the most requests".to_owned(),
        subtitle: "several names: no difference resolved between them".to_owned(),
        notes: vec!["Arms that failed, had errors or starved clients are left out.".to_owned()],
    };
    let value = |name: &str, ranking: &Ranking<'_>| Tip {
        place: format!(
            "{name}, {}",
            units::plural(ranking.condition.clients as usize, "client")
        ),
        value: ranking.details().replace('\n', "; "),
    };
    let values = rows
        .iter()
        .flat_map(|(name, group)| group.iter().map(move |ranking| value(name, ranking)))
        .collect();
    Some(Picture::new(&frame, (width, bottom + 24.0), values, &body))
}

fn cell(ranking: &Ranking<'_>, x: f64, y: f64, looks: &Looks<'_>) -> Markup {
    let (width, height) = (CELL.0 - GAP, CELL.1 - GAP);
    let decided = ranking.kind == RankingKind::Decided;
    let tinted: &[&str] = if decided { &ranking.leaders } else { &[] };
    let stripe = width / tinted.len().max(1) as f64;
    let texts = cell_texts(ranking);
    let first = y + height / 2.0 - (texts.len() as f64 - 1.0) * 6.5 + 2.0;

    html! {
        g.mark role="img" data-section=(ranking.condition.tag("")) data-leaders=(ranking.leaders.join(";")) {
            title { (ranking.details()) }
            rect.rule x=(px(x)) y=(px(y)) width=(px(width)) height=(px(height)) rx="4" fill="none" stroke="#d1d9e0" {}
            @for (index, name) in tinted.iter().enumerate() {
                @let look = looks.of(name);
                rect x=(px(x + stripe * index as f64)) y=(px(y)) width=(px(stripe)) height=(px(height)) fill=(look.colour)
                    fill-opacity="0.3" {}
                rect x=(px(x + stripe * index as f64)) y=(px(y + height - 4.0)) width=(px(stripe)) height="4"
                    fill=(look.colour) {}
            }
            @for (index, (line, strong)) in texts.iter().enumerate() {
                text x=(px(x + width / 2.0)) y=(px(first + index as f64 * 13.0)) text-anchor="middle"
                    font-size=(if *strong { "12" } else { "10.5" }) font-weight=[strong.then_some("600")] { (line) }
            }
        }
    }
}

/// Lines of text in a cell, and whether each is a name in bold.
fn cell_texts(ranking: &Ranking<'_>) -> Vec<(String, bool)> {
    let plain = |lines: &[&str]| lines.iter().map(|&line| (line.to_owned(), false)).collect();
    let mut texts: Vec<(String, bool)> = match ranking.kind {
        RankingKind::TooFewBlocks => plain(&["too few", "blocks"]),
        RankingKind::SingleArm => plain(&["one arm", "only"]),
        RankingKind::NoArm => plain(&["none"]),
        RankingKind::Decided => {
            let leaders = &ranking.leaders;
            let fits = leaders.len() <= NAMES;
            let shown = if fits { NAMES } else { NAMES - 1 };
            let names = leaders.iter().take(shown);
            let mut texts: Vec<_> = names.map(|name| (short(name), true)).collect();
            if !fits {
                texts.push((format!("and {} more", leaders.len() - shown), false));
            }
            texts
        }
    };
    texts.extend(ranking.margin().map(|margin| (margin, false)));
    texts
}
