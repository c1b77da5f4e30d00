//! Random faults, drawn as calls begin, as instances are born, and as time passes.

use std::time::Duration;

use longshore_cloud::{ErrorKind, Scope};
use longshore_types::{Instant, Market};

use super::rules::{Fate, WrongId};
use super::{Cloud, Timer};
use crate::{Call, Episode, FaultPlan, Happening, Misfortune};

/// The bad times.
#[derive(Debug, Default)]
pub(super) struct Weather {
    episode: Option<Episode>,
    /// Timers of an earlier plan count no more.
    plan: u64,
}

/// If nobody lets time pass for so long, the bad times before count as missed.
const MISSED: Duration = Duration::from_secs(86_400);

impl Cloud {
    /// Another plan from now on; an episode of the old one ends.
    pub fn set_plan(&mut self, plan: FaultPlan, now: Instant) {
        self.handle_timeout(now);
        self.end_episode();
        self.settings.plan = plan;
        self.begin_plan();
    }

    pub(super) fn begin_plan(&mut self) {
        self.weather.plan += 1;
        self.next_episode(self.now);
    }

    fn next_episode(&mut self, after: Instant) {
        if let Some(every) = self.settings.plan.episode_every {
            let wait = self.random.duration(&every).max(Duration::from_secs(1));
            self.set_episode_timer(after + wait);
        }
    }

    fn set_episode_timer(&mut self, at: Instant) {
        if at < Instant::FAR_FUTURE {
            self.set_timer(at, Timer::Weather(self.weather.plan));
        }
    }

    /// An episode begins or ends, while time passes until `until`.
    pub(super) fn change_weather(&mut self, plan: u64, until: Instant) {
        if plan != self.weather.plan {
            return;
        }
        if self.weather.episode.is_some() {
            self.end_episode();
            let missed = u64::try_from(MISSED.as_nanos()).unwrap_or(u64::MAX);
            let recent = Instant::from_nanos(until.as_nanos().saturating_sub(missed));
            self.next_episode(self.now.max(recent));
            return;
        }
        let episode = match self.random.below(4) {
            0 => Episode::Outage,
            1 => Episode::Throttling,
            2 => Episode::Drought,
            _ => Episode::Lag,
        };
        self.weather.episode = Some(episode);
        self.note(Happening::EpisodeBegan(episode));
        let length = self.settings.plan.episode_length;
        let length = length.map_or(Duration::ZERO, |length| self.random.duration(&length));
        self.set_episode_timer(self.now + length.max(Duration::from_secs(1)));
    }

    fn end_episode(&mut self) {
        if let Some(episode) = self.weather.episode.take() {
            self.note(Happening::EpisodeEnded(episode));
        }
    }

    /// What goes wrong with a call by chance.
    pub(super) fn draw_bad_luck(&mut self, call: &Call) -> Fate {
        let (plan, random) = (&self.settings.plan, &mut self.random);
        let mut fate = Fate {
            lose_request: random.happens(plan.lose_request),
            lose_reply: random.happens(plan.lose_reply),
            fail_after: random
                .happens(plan.fail_after_acting)
                .then_some(ErrorKind::Other),
            ..Fate::default()
        };
        if random.happens(plan.slow) {
            let by = plan
                .slow_by
                .map_or(Duration::ZERO, |by| random.duration(&by));
            fate.delay_before = by / 2;
            fate.delay_after = by / 2;
        }
        match call {
            Call::List(_) => {
                fate.repeat_pages = random.happens(plan.repeat_pages);
                fate.fail_after_pages = random.happens(plan.break_pages).then_some(1);
                if random.happens(plan.stale) {
                    fate.stale = plan.stale_by.map(|by| random.duration(&by));
                }
                if random.happens(plan.short) {
                    fate.omit_some = plan.short_by;
                }
            }
            Call::Destroy(_) | Call::SetTags(_) if plan.fail_id.millionths() > 0 => {
                fate.fail_some.push((None, plan.fail_id, ErrorKind::Other));
            }
            Call::Create(request) => {
                if random.happens(plan.wrong_id) {
                    let repeated = random.below(2) == 0;
                    let wrong = [WrongId::Empty, WrongId::Repeated][usize::from(repeated)];
                    fate.wrong_id = Some(wrong);
                }
                self.draw_misfortunes(&mut fate, request.instance_type.market());
            }
            _ => {}
        }
        self.add_weather(&mut fate, call);
        fate
    }

    fn draw_misfortunes(&mut self, fate: &mut Fate, market: Market) {
        let (plan, random) = (&self.settings.plan, &mut self.random);
        let interrupt = match market {
            Market::Preemptible => plan.interrupt,
            Market::OnDemand => crate::Chance::NEVER,
        };
        let minute = Duration::from_secs(60);
        let possible = [
            (plan.never_boot, Misfortune::NeverBoot),
            (plan.vanish, Misfortune::Vanish),
            (interrupt, Misfortune::Interrupt(plan.interrupt_notice)),
            (plan.change_address, Misfortune::ChangeAddress),
            (plan.linger, Misfortune::LingerStopping),
            (plan.come_back, Misfortune::ComeBack(minute)),
            (plan.lose_tags, Misfortune::LoseTags),
            (plan.garble_tags, Misfortune::GarbleTags),
        ];
        for (chance, misfortune) in possible {
            if !random.happens(chance) {
                continue;
            }
            let from_birth = matches!(
                misfortune,
                Misfortune::NeverBoot | Misfortune::LingerStopping | Misfortune::ComeBack(_)
            );
            let after = match plan.misfortune_after {
                Some(after) if !from_birth => random.duration(&after),
                _ => Duration::ZERO,
            };
            fate.strikes.push((None, after, misfortune));
        }
    }

    fn add_weather(&mut self, fate: &mut Fate, call: &Call) {
        let retry_after = Some(Duration::from_secs(10));
        match (self.weather.episode, call) {
            (Some(Episode::Outage), _) => fate.lose_request = true,
            (Some(Episode::Throttling), _) => {
                fate.refuse = Some(ErrorKind::RateLimited { retry_after });
            }
            (Some(Episode::Drought), Call::Create(_)) => {
                fate.refuse = Some(ErrorKind::NoCapacity(Scope::Everything));
            }
            (Some(Episode::Lag), Call::List(_)) => {
                let lag = Duration::from_secs(300);
                fate.stale = Some(fate.stale.unwrap_or_default().max(lag));
            }
            _ => {}
        }
    }
}
