//! Learns the limits of a provider and keeps just under them.
//!
//! Providers limit each kind of call by a token bucket: so many calls at once, then so many a
//! second. They rarely say how many, change it, and count other users of the account as well. A
//! [`Governor`] finds out from what is refused, a [`Core`] for each kind of call:
//!
//! 1. As long as nothing is refused everything goes.
//! 2. A refusal says that the bucket is empty at that moment. What passed before it, less what came
//!    in meanwhile, is the **size** of the bucket.
//! 3. What passes between two refusals, by the time between them, is the **rate**, to within one
//!    call: so the first 16 calls, by a pace that grows by half every two calls and falls back at
//!    each refusal, tell it well enough to begin with.
//! 4. From then on calls go a little faster than the rate, 0.4 to 2 %, until one is refused; the
//!    window over the last refusals (at most 64, about 5,000 calls) then gives the rate
//!    ever better. After a refusal a third of the bucket, at most 10 tokens, is left to fill again,
//!    so that the calls of others do not become our refusals at once; the faster pace spends it.
//! 5. **Probing upward**: the longer nothing is refused although calls wait, the faster the pace
//!    grows. Once it had to grow by a quarter, the refusal that ends it begins step 3 again.
//! 6. **Forgetting**: parts of the window that disagree with what came after them by more than
//!    chance explains (three deviations of a count) are dropped; two refusals with nothing between
//!    them begin step 3 again.
//! 7. Calls that did not have to wait say nothing of the rate. A refusal after a quiet time tells the
//!    size anew; a whole bucket that is spent without one makes it a quarter larger.
//!
//! A call that was under way when a refusal became known belongs to that refusal. Waits are at most
//! an hour, those that the provider asks for a minute.
//!
//! # Figures
//!
//! A model bucket on virtual time, callers that always have a next call; four hours, of which the
//! first half hour is left out (of changes: the first hour after the change). Answers take 0.3 s
//! with 20 callers, else none; others take at random moments, answers then take 0.1 s and there are
//! four callers. `cargo run --release -p longshore-throttle --example governor`, tested in
//! `tests/governor.rs`:
//!
//! | bucket | possible | achieved | | refused |
//! |---|---|---|---|---|
//! | 1,000 + 2/s | 2.000/s | 2.001/s | 100.0% | 0.18% |
//! | 100 + 20/s | 20.000/s | 19.999/s | 100.0% | 0.18% |
//! | 10 + 0.5/s | 0.500/s | 0.500/s | 100.0% | 0.30% |
//! | 5 + 10/s | 10.000/s | 10.000/s | 100.0% | 0.25% |
//! | 1,000 + 2/s, 20 callers | 2.000/s | 1.999/s | 100.0% | 0.17% |
//! | 100 + 20/s, 20 callers | 20.000/s | 20.000/s | 100.0% | 0.18% |
//! | 10 + 0.5/s, 20 callers | 0.500/s | 0.500/s | 100.0% | 0.30% |
//! | 5 + 10/s, 20 callers | 10.000/s | 10.000/s | 100.0% | 0.25% |
//! | 1,000 + 2/s, others take 30 % | 1.400/s | 1.410/s | 100.7% | 0.20% |
//! | 100 + 20/s, others take 30 % | 14.000/s | 14.064/s | 100.5% | 0.23% |
//! | 10 + 0.5/s, others take 30 % | 0.350/s | 0.348/s | 99.4% | 0.61% |
//! | 5 + 10/s, others take 30 % | 7.000/s | 6.206/s | 88.7% | 1.07% |
//! | 1,000 + 2/s, then 6/s | 6.000/s | 5.999/s | 100.0% | 0.18% |
//! | 1,000 + 2/s, then 0.5/s | 0.500/s | 0.501/s | 100.2% | 0.17% |
//! | 100 + 20/s, then 40/s | 40.000/s | 40.001/s | 100.0% | 0.18% |
//! | 100 + 20/s, then 5/s | 5.000/s | 4.999/s | 100.0% | 0.17% |
//!
//! The one row that is worse than 5 % and 1 %: a bucket of five tokens is too small to even out what
//! others take at random moments, so it overflows or runs dry. More than 100 % is taken from them.

mod answer;
mod core;
mod head_room;
mod layer;

pub use answer::{Answer, Permission, Permit};
pub use core::Core;
pub use head_room::HeadRoom;
pub use layer::{Governor, Learned};
