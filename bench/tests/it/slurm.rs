//! Runs on hosts of an allocation of Slurm.

use crate::common::place::Place;
use crate::common::rig::Rig;
use crate::common::{HANG, finish};
use crate::hosts::{SCENARIO, assert_counts_agree};

#[test]
fn counts_agree_over_slurm_with_clocks_apart() {
    let Some(rig) = Rig::with_slurm() else { return };
    let place = Place::with(SCENARIO);
    let finished = finish(rig.run(&place, &[]));

    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert_counts_agree(&place, 6);
    rig.is_left_within(HANG);
}
