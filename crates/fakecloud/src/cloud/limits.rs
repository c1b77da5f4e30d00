//! Rate limits.

use std::collections::BTreeMap;
use std::time::Duration;

use longshore_cloud::ErrorKind;

use super::{Cloud, Refusal};
use crate::CallKind;

/// Token buckets, each as the moment, in nanoseconds, at which it would be full.
#[derive(Debug, Default)]
pub(super) struct Buckets(BTreeMap<CallKind, u128>);

impl Cloud {
    /// Takes a token for a call, unless each of its ids takes one.
    pub(super) fn take_token(&mut self, kind: CallKind) -> Result<(), Refusal> {
        self.take(kind, false)
    }

    /// Takes a token for one id of a batch, if each takes one.
    pub(super) fn take_token_for_id(&mut self, kind: CallKind) -> Result<(), Refusal> {
        self.take(kind, true)
    }

    fn take(&mut self, kind: CallKind, per_id: bool) -> Result<(), Refusal> {
        let batch = matches!(kind, CallKind::Destroy | CallKind::SetTags);
        let Some(limit) = self.settings.rates.get(&kind) else {
            return Ok(());
        };
        if (limit.per_id && batch) != per_id {
            return Ok(());
        }
        let full_at = self.buckets.0.entry(kind).or_default();
        let interval = limit.interval.as_nanos();
        let now = u128::from(self.now.as_nanos());
        let after = (*full_at).max(now).saturating_add(interval);
        let most = interval.saturating_mul(u128::from(limit.burst));
        let lacking = (after - now).saturating_sub(most);
        if lacking == 0 {
            *full_at = after;
            return Ok(());
        }
        let wait = Duration::from_nanos(u64::try_from(lacking).unwrap_or(u64::MAX));
        let retry_after = (limit.says_when && limit.burst > 0).then_some(wait);
        let kind = ErrorKind::RateLimited { retry_after };
        Err(Refusal::new(kind, "request limit exceeded"))
    }
}
