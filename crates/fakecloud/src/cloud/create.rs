//! Making instances.

use std::collections::VecDeque;

use longshore_cloud::{CreateRequest, ErrorKind, Instance, InstanceState, Scope, Tags};
use longshore_types::InstanceId;

use super::life::Step;
use super::rules::{Fate, WrongId};
use super::{Cloud, Refusal};
use crate::random::mix;
use crate::{FakeInstance, Happening};

impl Cloud {
    pub(super) fn create(
        &mut self,
        request: &CreateRequest,
        fate: &Fate,
    ) -> Result<Instance, Refusal> {
        self.check_request(request)?;
        let fingerprint = fingerprint(request);
        let made = match self.repeated(request, fingerprint)? {
            Some(serial) => serial,
            None => {
                let zone = self.find_room(request)?;
                self.give_birth(request, fingerprint, zone, fate)
            }
        };
        let previous = self.fleet.previous(made);
        let version = self.fleet.get(made).and_then(|made| made.versions.back());
        let shown = version.map(|version| Instance::clone(&version.shown));
        let mut instance =
            shown.ok_or_else(|| Refusal::new(ErrorKind::Other, "the instance is forgotten"))?;
        match fate.wrong_id {
            Some(WrongId::Empty) => instance.id = InstanceId::new(""),
            Some(WrongId::Repeated) => {
                if let Some(id) = previous {
                    instance.id = id;
                }
            }
            None => {}
        }
        Ok(instance)
    }

    fn check_request(&self, request: &CreateRequest) -> Result<(), Refusal> {
        let settings = &self.settings;
        let kind = &request.instance_type;
        let invalid = |words: String| Err(Refusal::new(ErrorKind::InvalidRequest, words));
        let types = &settings.provider_types;
        if !types.is_empty() && !types.contains(&kind.provider_type) {
            return invalid(format!("no type {:?}", kind.provider_type));
        }
        if !settings.images.is_empty() && !settings.images.contains(&request.image) {
            return invalid(format!("no image {:?}", request.image));
        }
        if request.init_script.len() > settings.script_bytes_max {
            return invalid(format!("a script of {} bytes", request.init_script.len()));
        }
        let token = request.token.as_bytes();
        let plain = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-';
        if token.len() > 64 || !token.iter().all(plain) {
            return invalid(format!("token {:?}", request.token));
        }
        self.check_tags(&request.tags)
    }

    /// Whether the provider takes these tags.
    pub(super) fn check_tags(&self, tags: &Tags) -> Result<(), Refusal> {
        let settings = &self.settings;
        let invalid = |words| Err(Refusal::new(ErrorKind::InvalidRequest, words));
        if tags.len() > settings.tags_max {
            return invalid(format!("{} tags", tags.len()));
        }
        for (key, value) in tags {
            if key.is_empty() || key.len() > settings.tag_key_bytes_max {
                return invalid(format!("the name of a tag has {} bytes", key.len()));
            }
            if value.len() > settings.tag_value_bytes_max {
                return invalid(format!("the value of tag {key} has {} bytes", value.len()));
            }
        }
        Ok(())
    }

    /// The instance that an earlier request with this token made.
    fn repeated(&self, request: &CreateRequest, fingerprint: u64) -> Result<Option<u64>, Refusal> {
        if !self.settings.capabilities.idempotent_create || request.token.is_empty() {
            return Ok(None);
        }
        let Some(serial) = self.fleet.by_token(&request.token) else {
            return Ok(None);
        };
        match self.fleet.get(serial) {
            Some(made) if made.fingerprint != fingerprint => {
                let words = format!("token {} was used for another request", request.token);
                Err(Refusal::new(ErrorKind::InvalidRequest, words))
            }
            made => Ok(made.map(|made| made.serial)),
        }
    }

    /// The zone for an instance, if there is capacity and quota for it.
    fn find_room(&mut self, request: &CreateRequest) -> Result<Option<String>, Refusal> {
        if self.fleet.len() >= self.settings.instances_max {
            let kind = ErrorKind::QuotaExceeded(Scope::Everything);
            return Err(Refusal::new(kind, "the most instances there can be"));
        }
        for scope in self.scopes(request) {
            self.check_scope(&scope, request)?;
        }
        let zones = self.settings.zones.len();
        let first = usize::try_from(self.random.below(zones as u64)).unwrap_or(0);
        let mut refusal = None;
        for i in 0..zones {
            let zone = &self.settings.zones[(first + i) % zones];
            match self.check_scope(&Scope::Zone(zone.clone()), request) {
                Ok(()) => return Ok(Some(zone.clone())),
                Err(full) => refusal = Some(full),
            }
        }
        refusal.map_or(Ok(None), Err)
    }

    /// What an instance counts as, its zone apart.
    fn scopes(&self, request: &CreateRequest) -> Vec<Scope> {
        let kind = &request.instance_type;
        let group = self.settings.quota_groups.get(&kind.provider_type);
        let mut scopes = vec![
            Scope::Everything,
            Scope::Market(kind.market()),
            Scope::Type(kind.name.clone()),
        ];
        scopes.extend(group.map(|group| Scope::QuotaGroup(group.clone(), kind.market())));
        scopes
    }

    fn check_scope(&self, scope: &Scope, request: &CreateRequest) -> Result<(), Refusal> {
        let now = self.now;
        let hole = self.settings.holes.iter();
        if hole
            .filter(|hole| hole.scope == *scope)
            .any(|hole| hole.begin <= now && now < hole.end)
        {
            let kind = ErrorKind::NoCapacity(scope.clone());
            return Err(Refusal::new(kind, "insufficient capacity"));
        }
        let (instances, vcpus) = self.fleet.used(scope);
        let more = u64::from(request.instance_type.vcpus);
        let quota = self.settings.quotas.iter();
        if quota.filter(|quota| quota.scope == *scope).any(|quota| {
            quota.instances.is_some_and(|most| instances >= most)
                || quota
                    .vcpus
                    .is_some_and(|most| vcpus.saturating_add(more) > most)
        }) {
            let kind = ErrorKind::QuotaExceeded(scope.clone());
            return Err(Refusal::new(kind, "limit exceeded"));
        }
        Ok(())
    }

    fn give_birth(
        &mut self,
        request: &CreateRequest,
        fingerprint: u64,
        zone: Option<String>,
        fate: &Fate,
    ) -> u64 {
        let serial = self.fleet.next_serial();
        let now = self.now;
        let tags = request.tags.clone();
        let at_birth = self.settings.capabilities.tags_at_birth;
        let kind = &request.instance_type;
        let secret = tags.iter().find(|(key, _)| key.ends_with("InstanceSecret"));
        let instance = FakeInstance {
            id: format!("{}-{serial}", self.settings.name).into(),
            type_name: kind.name.clone(),
            provider_type: kind.provider_type.clone(),
            vcpus: kind.vcpus,
            market: kind.market(),
            price: kind.price,
            quota_group: self.settings.quota_groups.get(&kind.provider_type).cloned(),
            zone,
            image: request.image.clone(),
            token: request.token.clone(),
            state: InstanceState::Pending,
            address: None,
            secret: secret.map(|(_, value)| value.clone()),
            tags: if at_birth { tags.clone() } else { Tags::new() },
            born: now,
            launched_at: self.wall_time(now),
            booted: None,
            destroyed: None,
            interrupted: None,
            gone: None,
            vanished: None,
            serial,
            remote_user: self.settings.remote_user.clone(),
            billed_from: Some(now),
            late_tags: (!at_birth).then_some(tags),
            never_boots: self.random.happens(self.settings.never_boots),
            lingers: false,
            is_off: false,
            comes_back: None,
            fingerprint,
            console: Vec::new(),
            versions: VecDeque::new(),
        };
        self.witness.live(&instance, true);
        self.note(Happening::Born(
            instance.id.clone(),
            instance.type_name.clone(),
            instance.zone.clone(),
        ));
        self.fleet.add(instance, now);
        for (_, after, misfortune) in &fate.strikes {
            self.strike_later(serial, *after, misfortune.clone());
        }
        self.begin_life(serial, at_birth);
        serial
    }

    fn begin_life(&mut self, serial: u64, tagged: bool) {
        if !tagged {
            let delay = self.random.duration(&self.settings.tag_delay);
            self.live_later(serial, delay, Step::Tag);
        }
        let address = self.random.duration(&self.settings.address_delay);
        let boot = self.random.duration(&self.settings.boot);
        self.live_later(serial, address, Step::Run);
        self.live_later(serial, boot.max(address), Step::Boot);
    }
}

/// A hash of everything in a request.
fn fingerprint(request: &CreateRequest) -> u64 {
    let text = format!("{request:?}");
    text.bytes()
        .fold(1, |hash, byte| mix(hash ^ u64::from(byte)))
}
