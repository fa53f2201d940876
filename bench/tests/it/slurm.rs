//! Runs on hosts of an allocation of Slurm.

use crate::common::rig::Rig;
use crate::ssh::counts_agree_and_nothing_is_left;

#[test]
fn counts_agree_over_slurm_with_clocks_apart() {
    if let Some(rig) = Rig::with_slurm() {
        counts_agree_and_nothing_is_left(&rig);
    }
}
