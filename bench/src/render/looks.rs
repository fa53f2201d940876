//! Looks of the arms, the same in every chart: a colour that colour-blind readers can tell from the others,
//! and a dash and a marker for readers who see no colours.

use echobench_servers::{Family, MODELS, find};

/// Okabe and Ito's palette without black and yellow, which are hard to see on one of the two backgrounds,
/// wine from the muted scheme of Tol, *Colour Schemes*, 2021, and a grey. Source: Okabe and Ito, *Color
/// Universal Design*, 2008.
const COLOURS: [&str; 8] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#882255", "#848d97",
];
const DASHES: [&str; 4] = ["none", "7 3", "2 3", "9 3 2 3"];

/// Shape of a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Marker {
    Circle,
    Square,
    Triangle,
    Diamond,
    Wedge,
}

const MARKERS: [Marker; 5] = [
    Marker::Circle,
    Marker::Square,
    Marker::Triangle,
    Marker::Diamond,
    Marker::Wedge,
];

/// Look of an arm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    pub(crate) colour: &'static str,
    pub(crate) dash: &'static str,
    pub(crate) marker: Marker,
}

impl Look {
    fn new(colour: usize, shape: usize) -> Self {
        Look {
            colour: COLOURS[colour % COLOURS.len()],
            dash: DASHES[shape % DASHES.len()],
            marker: MARKERS[shape % MARKERS.len()],
        }
    }
}

/// Looks of the arms of a run, in the order of their first row.
///
/// The family of an arm's model decides the colour; arms of other projects take the colours that are
/// left. Dash and marker tell arms of one colour apart.
pub(crate) struct Looks<'a> {
    arms: Vec<&'a str>,
    looks: Vec<Look>,
}

impl<'a> Looks<'a> {
    /// Looks of these arms; repetitions are left out.
    pub(crate) fn new(all: impl IntoIterator<Item = &'a str>) -> Self {
        let mut looks = Looks {
            arms: Vec::new(),
            looks: Vec::new(),
        };

        for arm in all {
            if !looks.arms.contains(&arm) {
                looks.looks.push(looks.next(arm));
                looks.arms.push(arm);
            }
        }
        looks
    }

    /// Every arm.
    pub(crate) fn arms(&self) -> &[&'a str] {
        &self.arms
    }

    /// Look of an arm.
    pub(crate) fn of(&self, arm: &str) -> Look {
        let place = self.arms.iter().position(|known| *known == arm);
        place.map_or_else(|| self.next(arm), |place| self.looks[place])
    }

    /// Look of a further arm.
    fn next(&self, arm: &str) -> Look {
        let own = model_of(arm);
        let place = MODELS.iter().position(|known| known.name == own);
        let (colour, shape) = if let Some(place) = place {
            (MODELS[place].family as usize, place)
        } else {
            let place = Family::ALL.len() + self.other_projects(own);
            (place, place)
        };

        let same = self
            .arms
            .iter()
            .filter(|other| model_of(other) == own)
            .count();
        let mut look = Look::new(colour, shape + same);
        // A variant of one model may meet another model of its family; there are 20 looks of a colour.
        for further in 1..DASHES.len() * MARKERS.len() {
            if !self.looks.contains(&look) {
                break;
            }
            look = Look::new(colour, shape + same + further);
        }
        look
    }

    /// Number of other projects among the arms before those of this one.
    fn other_projects(&self, own: &str) -> usize {
        let mut others: Vec<&str> = self.arms.iter().map(|arm| model_of(arm)).collect();
        others.retain(|other| find(other).is_err());
        others.dedup();
        others
            .iter()
            .position(|other| *other == own)
            .unwrap_or(others.len())
    }
}

/// Name of the model of an arm: its first word.
fn model_of(arm: &str) -> &str {
    arm.split(' ').next().unwrap_or(arm)
}

/// Name of an arm without the names of its options, for places with little room.
pub(crate) fn short(arm: &str) -> String {
    let words: Vec<&str> = arm
        .split(' ')
        .filter(|word| !word.starts_with("--"))
        .collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_models_look_alike() {
        let looks = Looks::new(MODELS.iter().map(|model| model.name));
        let all: Vec<Look> = looks.arms().iter().map(|arm| looks.of(arm)).collect();
        for (index, look) in all.iter().enumerate() {
            assert!(!all[..index].contains(look), "{:?}", looks.arms()[index]);
        }
    }

    #[test]
    fn arms_of_a_model_share_its_colour_and_differ_otherwise() {
        let looks = Looks::new(["pool", "pool --workers 8", "thread", "candidate"]);
        let (one, two) = (looks.of("pool"), looks.of("pool --workers 8"));
        assert_eq!(one.colour, two.colour);
        assert_ne!((one.dash, one.marker), (two.dash, two.marker));
        assert_ne!(looks.of("candidate").colour, one.colour);
        assert_eq!(short("pool --workers 8"), "pool 8");
    }

    #[test]
    fn every_family_has_a_colour_and_other_projects_have_one_left() {
        assert!(Family::ALL.len() < COLOURS.len());
        for (index, family) in Family::ALL.into_iter().enumerate() {
            assert_eq!(family as usize, index, "{}", family.name());
        }
    }

    #[test]
    fn arms_of_one_colour_never_look_alike() {
        let variants: Vec<String> = (1..20).map(|n| format!("thread --backlog {n}")).collect();
        let looks = Looks::new(variants.iter().map(String::as_str));
        for (index, look) in looks.looks.iter().enumerate() {
            assert!(!looks.looks[..index].contains(look), "{index}");
        }
    }

    #[test]
    fn a_model_looks_the_same_whatever_else_is_there() {
        let alone = Looks::new(["async"]);
        let last = Looks::new(["iterative", "fork", "async"]);
        assert_eq!(alone.of("async"), last.of("async"));
    }
}
