//! Provider calls that failed: told in the log, and counted.

use std::collections::BTreeMap;
use std::fmt;

use super::metrics::Metrics;
use crate::effect::{CloudFailure, Effect, EffectAction, EffectId, Outcome};
use crate::text::one_line;

/// Looks at effects and their outcomes for provider calls that failed.
pub(super) struct Failures {
    metrics: Option<Metrics>,
    /// What calls are about whose outcome does not say it.
    about: BTreeMap<EffectId, String>,
}

impl Failures {
    pub(super) fn new(metrics: Option<Metrics>) -> Self {
        let about = BTreeMap::new();
        Self { metrics, about }
    }

    pub(super) fn on_effect(&mut self, effect: &Effect) {
        let about = match &effect.action {
            EffectAction::Create(request) => request.instance_type.name.to_string(),
            EffectAction::SetTags(instance, _) | EffectAction::Console(instance, _) => {
                instance.to_string()
            }
            _ => return,
        };
        self.about.insert(effect.id, about);
    }

    pub(super) fn on_outcome(&mut self, id: EffectId, outcome: &Outcome) {
        let about = self.about.remove(&id).unwrap_or_default();
        match outcome {
            Outcome::Created(Err(failure)) => {
                let error = one_line(&failure.error);
                let unknown = failure.may_have_acted;
                tracing::warn!(operation = "create", instance_type = %about, unknown, error, "a provider call failed");
                self.count("create", failure);
            }
            Outcome::Listed(Err(failure)) => {
                let error = one_line(&failure.error);
                tracing::warn!(operation = "list", error, "a provider call failed");
                self.count("list", failure);
            }
            Outcome::Destroyed(results) => {
                for (instance, result) in results {
                    if let Err(failure) = result {
                        self.on_instance("destroy", instance, failure);
                    }
                }
            }
            Outcome::TagsSet(Err(failure)) => self.on_instance("tags", &about, failure),
            Outcome::Console(Err(failure)) => self.on_instance("console", &about, failure),
            _ => {}
        }
    }

    fn on_instance(
        &self,
        operation: &'static str,
        instance: &dyn fmt::Display,
        failure: &CloudFailure,
    ) {
        // What a driver gives back may be anything.
        let instance = one_line(&instance.to_string());
        let error = one_line(&failure.error);
        tracing::warn!(operation, instance, error, "a provider call failed");
        self.count(operation, failure);
    }

    fn count(&self, operation: &'static str, failure: &CloudFailure) {
        if let Some(metrics) = &self.metrics {
            metrics.count_provider_failure(operation, failure.kind_label());
        }
    }
}
