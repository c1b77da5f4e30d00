//! What is known not to hold yet.

use crate::{FaultKind, Rule, Scenario};

/// Faults that the dispatcher is known not to survive yet: none.
///
/// ```
/// use longshore_sim::{FaultKind, NOT_SURVIVED};
/// assert!(!NOT_SURVIVED.contains(&FaultKind::Crash));
/// ```
pub const NOT_SURVIVED: &[FaultKind] = &[];

/// Rules that are known to be broken: none.
///
/// ```
/// use longshore_sim::{BROKEN, Rule};
/// assert!(!BROKEN.contains(&Rule::RunsTwice));
/// ```
pub const BROKEN: &[Rule] = &[];

impl Scenario {
    /// Leaves out what is known not to hold yet, and nothing else: the faults that are
    /// [`NOT_SURVIVED`] do not happen, and the rules that are [`BROKEN`] are tolerated.
    ///
    /// ```
    /// use longshore_sim::{BROKEN, NOT_SURVIVED, Scenario};
    /// let mut scenario = Scenario::wild(1);
    /// scenario.leave_out_known();
    /// assert!(!scenario.faults.kinds().any(|kind| NOT_SURVIVED.contains(&kind)));
    /// assert_eq!(scenario.tolerated, BROKEN);
    /// ```
    pub fn leave_out_known(&mut self) {
        for kind in NOT_SURVIVED {
            self.faults.set(*kind, 0);
        }
        self.tolerated.extend_from_slice(BROKEN);
    }
}
