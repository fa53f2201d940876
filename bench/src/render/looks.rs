//! How each arm looks, the same in every chart: a colour that colour-blind readers can tell from the
//! others, and a dash and a marker for those who see no colours at all.

use echobench_servers::MODELS;

/// Okabe and Ito's palette without black and yellow, which one of two backgrounds swallows, and a
/// grey. Source: Okabe and Ito, *Color Universal Design*, 2008.
const COLOURS: [&str; 7] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#848d97",
];
const DASHES: [&str; 4] = ["none", "7 3", "2 3", "9 3 2 3"];

/// The shape of a point.
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

/// The look of an arm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    pub(crate) colour: &'static str,
    pub(crate) dash: &'static str,
    pub(crate) marker: Marker,
}

/// The arms of a run, in the order in which they came.
pub(crate) struct Looks<'a> {
    arms: Vec<&'a str>,
}

impl<'a> Looks<'a> {
    /// The looks of these arms.
    pub(crate) fn new(all: impl IntoIterator<Item = &'a str>) -> Self {
        let mut arms: Vec<&str> = Vec::new();
        for arm in all {
            if !arms.contains(&arm) {
                arms.push(arm);
            }
        }
        Looks { arms }
    }

    /// Every arm.
    pub(crate) fn arms(&self) -> &[&'a str] {
        &self.arms
    }

    /// The model decides the colour; arms that share a model differ in dash and marker.
    pub(crate) fn of(&self, arm: &str) -> Look {
        let place = self.arms.iter().position(|known| *known == arm);
        let before = &self.arms[..place.unwrap_or(0)];
        let own = model(arm);
        let same = before.iter().filter(|other| model(other) == own).count();
        let known = |name: &str| MODELS.iter().position(|model| model.name == name);
        let index = known(own).unwrap_or_else(|| {
            let mut others: Vec<&str> = before.iter().map(|other| model(other)).collect();
            others.retain(|other| known(other).is_none() && *other != own);
            others.dedup();
            MODELS.len() + others.len()
        });
        let shape = index + same;
        Look {
            colour: COLOURS[index % COLOURS.len()],
            dash: DASHES[shape % DASHES.len()],
            marker: MARKERS[shape % MARKERS.len()],
        }
    }
}

fn model(arm: &str) -> &str {
    arm.split(' ').next().unwrap_or(arm)
}

/// An arm's name where there is little room: without the names of its options.
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
    fn a_model_looks_the_same_whatever_else_is_there() {
        let alone = Looks::new(["async"]);
        let last = Looks::new(["iterative", "fork", "async"]);
        assert_eq!(alone.of("async"), last.of("async"));
    }
}
