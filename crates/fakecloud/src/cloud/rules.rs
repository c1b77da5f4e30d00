//! Which faults a call has.

use std::collections::BTreeMap;
use std::time::Duration;

use longshore_cloud::ErrorKind;
use longshore_types::{InstanceId, Market, TypeName};

use super::Cloud;
use crate::{Call, CallId, Chance, Fault, Happening, Match, Misfortune, Rule, RuleId};

/// The rules that hold.
#[derive(Debug, Default)]
pub(super) struct Rules {
    rules: BTreeMap<RuleId, Injected>,
    made: u64,
}

#[derive(Debug)]
struct Injected {
    rule: Rule,
    /// How many calls have met it, its `nth` apart.
    seen: u64,
}

/// What goes wrong with one call.
#[derive(Clone, Debug, Default)]
pub(super) struct Fate {
    pub(super) refuse: Option<ErrorKind>,
    pub(super) lose_request: bool,
    pub(super) lose_reply: bool,
    pub(super) fail_after: Option<ErrorKind>,
    pub(super) delay_before: Duration,
    pub(super) delay_after: Duration,
    pub(super) hold_request: bool,
    pub(super) hold_reply: bool,
    pub(super) stale: Option<Duration>,
    pub(super) omit: Vec<InstanceId>,
    pub(super) omit_some: Chance,
    pub(super) repeat_pages: bool,
    pub(super) fail_after_pages: Option<u32>,
    pub(super) fail_some: Vec<(Option<InstanceId>, Chance, ErrorKind)>,
    pub(super) wrong_id: Option<WrongId>,
    pub(super) strikes: Vec<(Option<InstanceId>, Duration, Misfortune)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WrongId {
    Empty,
    Repeated,
}

impl Fate {
    fn add(&mut self, fault: &Fault, instance: Option<&InstanceId>) {
        match fault {
            Fault::Refuse(kind) => {
                self.refuse.get_or_insert_with(|| kind.clone());
            }
            Fault::LoseRequest => self.lose_request = true,
            Fault::LoseReply => self.lose_reply = true,
            Fault::FailAfterActing(kind) => {
                self.fail_after.get_or_insert_with(|| kind.clone());
            }
            Fault::Delay { before, after } => {
                self.delay_before = self.delay_before.saturating_add(*before);
                self.delay_after = self.delay_after.saturating_add(*after);
            }
            Fault::HoldRequest => self.hold_request = true,
            Fault::HoldReply => self.hold_reply = true,
            Fault::StaleListing(age) => {
                self.stale.get_or_insert(*age);
            }
            Fault::OmitInstances(ids) => self.omit.extend(ids.iter().cloned()),
            Fault::OmitSome(chance) => self.omit_some = self.omit_some.max(*chance),
            Fault::RepeatPages => self.repeat_pages = true,
            Fault::FailAfterPages(pages) => {
                self.fail_after_pages.get_or_insert(*pages);
            }
            Fault::FailSome(chance, kind) => {
                let only = instance.cloned();
                self.fail_some.push((only, *chance, kind.clone()));
            }
            Fault::EmptyId => self.wrong_id = self.wrong_id.or(Some(WrongId::Empty)),
            Fault::RepeatedId => self.wrong_id = self.wrong_id.or(Some(WrongId::Repeated)),
            Fault::Strike { after, misfortune } => {
                let only = instance.cloned();
                self.strikes.push((only, *after, misfortune.clone()));
            }
        }
    }
}

impl Cloud {
    /// From now on calls that the rule matches have its fault.
    pub fn inject(&mut self, rule: Rule) -> RuleId {
        self.rules.made += 1;
        let id = RuleId(self.rules.made);
        self.rules.rules.insert(id, Injected { rule, seen: 0 });
        id
    }

    /// From now on no call has the fault of a rule any more; false if there is no such rule (any
    /// more: a rule that has been used up is lifted). Calls that have begun keep theirs.
    pub fn lift(&mut self, id: RuleId) -> bool {
        self.rules.rules.remove(&id).is_some()
    }

    /// What goes wrong with a call that begins now.
    pub(super) fn draw_fate(&mut self, call_id: CallId, call: &Call) -> Fate {
        let mut fate = self.draw_bad_luck(call);
        if self.rules.rules.is_empty() {
            return fate;
        }
        let subject = self.subject(call);
        let (mut met, mut used_up) = (Vec::new(), Vec::new());
        for (id, injected) in &mut self.rules.rules {
            if !subject.meets(&injected.rule.on) {
                continue;
            }
            injected.seen += 1;
            let turn = injected.rule.on.nth.is_none_or(|n| n == injected.seen);
            if !turn || !self.random.happens(injected.rule.probability) {
                continue;
            }
            if injected.rule.times == Some(0) {
                used_up.push(*id);
                continue;
            }
            met.push(*id);
            fate.add(&injected.rule.fault, injected.rule.on.instance.as_ref());
            if let Some(times) = &mut injected.rule.times {
                *times -= 1;
                if *times == 0 {
                    used_up.push(*id);
                }
            }
        }
        for id in used_up {
            self.rules.rules.remove(&id);
        }
        for rule in met {
            self.note(Happening::RuleMet(call_id, rule));
        }
        fate
    }

    fn subject<'a>(&self, call: &'a Call) -> Subject<'a> {
        let ids = call.ids();
        let (mut types, token) = match call {
            Call::Create(request) => {
                let of = &request.instance_type;
                (vec![(of.name.clone(), of.market())], Some(&*request.token))
            }
            _ => (Vec::new(), None),
        };
        for id in &ids {
            if let Some(found) = self.fleet.find(self.settings.name, id) {
                types.push((found.type_name.clone(), found.market));
            }
        }
        Subject {
            kind: call.kind(),
            types,
            ids,
            token,
        }
    }
}

/// What of a call rules look at.
struct Subject<'a> {
    kind: crate::CallKind,
    types: Vec<(TypeName, Market)>,
    ids: Vec<InstanceId>,
    token: Option<&'a str>,
}

impl Subject<'_> {
    fn meets(&self, on: &Match) -> bool {
        on.kind.is_none_or(|kind| kind == self.kind)
            && on.instance.as_ref().is_none_or(|id| self.ids.contains(id))
            && on
                .token
                .as_deref()
                .is_none_or(|token| self.token == Some(token))
            && ((on.type_name.is_none() && on.market.is_none())
                || self.types.iter().any(|(name, market)| {
                    on.type_name.as_ref().is_none_or(|wanted| wanted == name)
                        && on.market.is_none_or(|wanted| wanted == *market)
                }))
    }
}
