//! Dependence of the ranking on the client: on its driver, and on the CPUs that it shares with the server.

use echobench_clients::Driver;

use super::scenario_report::{ArmLine, ScenarioReport};
use super::verdict::{Ranking, RankingKind, listed};
use crate::render::Part;
use crate::render::grid::{Cell, Grid, Row};
use crate::render::units::{self, UNKNOWN};
use crate::results::ConditionKey;
use crate::results::ordered::{distinct, entry};
use crate::scenario::Placement;

/// The rankings with one number of clients and one kind of traffic, under several drivers or placements.
struct Dependence<'a> {
    rankings: Vec<Ranking<'a>>,
}

impl<'a> ScenarioReport<'a> {
    /// Ratios by driver and placement, where there are several with the same number of clients.
    pub(super) fn dependence_tables(&self) -> Vec<Part> {
        let each = self.dependences();
        let parts = each.iter().map(|dependence| {
            let intro = format!(
                "What the ranking depends on: {} ÷ {} by driver and placement, {}. {}",
                dependence.rankings[0].measure.name,
                self.reference(),
                dependence.load(),
                dependence.sentence()
            );
            [
                Part::Lines(vec![intro]),
                Part::Table(self.dependence_table(dependence)),
            ]
        });
        parts.flatten().collect()
    }

    /// Sentences on whether the leading arms change with the driver or the placement.
    pub(super) fn dependence_sentences(&self) -> Vec<String> {
        let sentence = |dependence: &Dependence<'_>| {
            format!("With {}: {}", dependence.load(), dependence.sentence())
        };
        self.dependences().iter().map(sentence).collect()
    }

    fn dependences(&self) -> Vec<Dependence<'a>> {
        let mut each: Vec<((u32, String), Vec<Ranking<'a>>)> = Vec::new();
        for ranking in self.rankings() {
            let condition = &ranking.condition;
            let load = (condition.clients, condition.traffic.clone());
            entry(&mut each, load).push(ranking);
        }
        let compared = |ranking: &Ranking<'_>| ranking.kind != RankingKind::SingleArm;
        let several = each
            .into_iter()
            .filter(|(_, rankings)| rankings.len() > 1 && rankings.iter().any(compared));
        several
            .map(|(_, rankings)| Dependence { rankings })
            .collect()
    }

    fn dependence_table(&self, dependence: &Dependence<'_>) -> Grid {
        let compared = self.lines.iter().filter(|line| line.reference().is_some());
        let models = distinct(compared.map(ArmLine::model));
        let (drivers, placements) = (dependence.drivers(), dependence.placements());

        let metric = dependence.rankings[0].measure.metric;
        let cell = |model: &str, driver: Driver, placement: Placement| {
            let condition = ConditionKey {
                placement,
                driver,
                ..dependence.condition().clone()
            };
            let mut lines = self.lines.iter();
            let line = lines.find(|line| line.model() == model && line.condition() == condition);
            Cell::from(line.map_or_else(|| UNKNOWN.to_owned(), |line| line.ratio(metric)))
        };

        let mut rows = Vec::new();
        for model in models {
            for &driver in &drivers {
                let mut cells = vec![model.into(), driver.to_string().into()];
                let ratios = placements.iter();
                cells.extend(ratios.map(|&placement| cell(model, driver, placement)));
                rows.push(Row {
                    arm: String::new(),
                    section: model.to_owned(),
                    cells,
                });
            }
        }

        let mut header = vec!["model".to_owned(), "driver".to_owned()];
        header.extend(placements.iter().map(ToString::to_string));
        Grid {
            left: (0..header.len()).collect(),
            header,
            section_columns: 1,
            rows,
            ..Grid::default()
        }
    }
}

impl Dependence<'_> {
    /// The first of its conditions, which all have the same clients and traffic.
    fn condition(&self) -> &ConditionKey {
        &self.rankings[0].condition
    }

    /// The clients and their traffic, in words.
    fn load(&self) -> String {
        let condition = self.condition();
        condition.with_traffic(&units::plural(condition.clients as usize, "client"))
    }

    fn drivers(&self) -> Vec<Driver> {
        distinct(self.rankings.iter().map(|ranking| ranking.condition.driver))
    }

    fn placements(&self) -> Vec<Placement> {
        let rankings = self.rankings.iter();
        distinct(rankings.map(|ranking| ranking.condition.placement))
    }

    /// The leaders under each driver and placement, in words.
    fn sentence(&self) -> String {
        let mut rankings = self.rankings.iter();
        if rankings.any(|ranking| ranking.kind == RankingKind::TooFewBlocks) {
            return "Too few blocks to name a leader.".to_owned();
        }

        let lead = |ranking: &Ranking<'_>| match ranking.leaders.len() {
            0 => "no arm leads".to_owned(),
            1 => format!("{} leads", listed(&ranking.leaders)),
            _ => format!("{} lead alike", listed(&ranking.leaders)),
        };
        let mut groups: Vec<(String, Vec<String>)> = Vec::new();
        for ranking in &self.rankings {
            let condition = &ranking.condition;
            let place = format!("{} {}", condition.driver, condition.placement);
            entry(&mut groups, lead(ranking)).push(place);
        }

        if let [(lead, _)] = &groups[..] {
            return format!("Under every driver and placement measured, {lead}.");
        }
        let parts = groups
            .iter()
            .map(|(lead, places)| format!("{lead} ({})", places.join(", ")));
        let parts: Vec<String> = parts.collect();
        format!(
            "Who leads depends on {}: {}.",
            self.cause(),
            parts.join("; ")
        )
    }

    /// Cause of the difference between the leaders.
    fn cause(&self) -> &'static str {
        let by_driver = self.changes_within(|ranking| ranking.condition.placement);
        let by_placement = self.changes_within(|ranking| ranking.condition.driver);
        match (by_driver, by_placement) {
            (true, true) => "the driver and the placement",
            (true, false) => "the driver",
            (false, true) => "the placement",
            (false, false) => "the driver or the placement, which were not varied one by one",
        }
    }

    /// Whether the leaders differ between two conditions that share what `key` gives.
    fn changes_within<K: PartialEq>(&self, key: impl Fn(&Ranking<'_>) -> K) -> bool {
        self.rankings.iter().enumerate().any(|(index, a)| {
            let mut others = self.rankings[index + 1..].iter();
            others.any(|b| key(a) == key(b) && a.leaders != b.leaders)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::Style;
    use crate::results::summary::summarize;
    use crate::results::{BlockRow, SliceRow};
    use crate::scenario::Views;

    /// The dependence table of `thread` and `async`, which serves so many times as much in each place.
    fn text(places: &[(Driver, Placement, f64)]) -> String {
        let (mut slices, mut blocks) = (Vec::new(), Vec::new());
        for &(driver, placement, ratio) in places {
            for block in 1..=12 {
                for (model, rate) in [("thread", 100.0), ("async", 100.0 * ratio)] {
                    slices.push(SliceRow {
                        scenario: "steady".to_owned(),
                        clients: 64,
                        model: model.to_owned(),
                        driver,
                        placement,
                        block,
                        planned: 9,
                        replies: 9,
                        throughput_per_second: rate,
                        ..SliceRow::default()
                    });
                    blocks.push(BlockRow {
                        scenario: "steady".to_owned(),
                        clients: 64,
                        model: model.to_owned(),
                        driver,
                        placement,
                        block,
                        answered: 9,
                        throughput_per_second: Some(rate),
                        ..BlockRow::default()
                    });
                }
            }
        }

        let views = Views::default();
        let summary = summarize(&slices, &blocks, &views);
        let report = &ScenarioReport::each(&summary, &blocks, &views)[0];
        let parts = report.dependence_tables();
        let texts: Vec<String> = parts.iter().map(|part| part.text(Style::Plain)).collect();
        texts.join("\n")
    }

    #[test]
    fn a_lead_that_changes_is_said_to_change_with_its_cause() {
        use Driver::{Tasks, Threads};
        use Placement::{None, Split};

        let by_both = text(&[
            (Tasks, Split, 1.4),
            (Threads, Split, 1.2),
            (Tasks, None, 1.5),
            (Threads, None, 0.6),
        ]);
        let sentence = "Who leads depends on the driver and the placement: `async` leads (tasks split, threads split, \
                        tasks none); `thread` leads (threads none).";
        assert!(by_both.contains(sentence), "{by_both}");
        assert!(by_both.contains("1.50 [1.50, 1.50]"), "{by_both}");

        let by_placement = text(&[(Threads, Split, 1.2), (Threads, None, 0.6)]);
        assert!(
            by_placement.contains("depends on the placement:"),
            "{by_placement}"
        );
        let same = text(&[(Threads, Split, 1.2), (Tasks, Split, 1.4)]);
        assert!(
            same.contains("Under every driver and placement measured, `async` leads."),
            "{same}"
        );
        assert_eq!(text(&[(Threads, Split, 1.2)]), "");
    }
}
