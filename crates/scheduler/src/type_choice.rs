//! Which instance types satisfy a container.

use std::cmp::{Ordering, Reverse};

use longshore_types::{
    ByteSize, Gpu, GpuRequest, GpuStack, InstanceType, Price, Resource, ResourceRequest, Resources,
};

use crate::Config;

const MIB: u128 = 1 << 20;
/// How many of the nearest types an error names.
const NEAREST: usize = 3;

/// No configured type satisfies a container.
///
/// No example: [`eligible`] shows one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unsatisfiable {
    /// There are no types at all.
    #[error("site configuration does not list any instance types")]
    NoTypes,
    /// There are, and each lacks something.
    #[error("constraints not satisfiable by any configured instance type: {nearest}")]
    NoneFits {
        /// The types that lack least, and what each lacks.
        nearest: String,
    },
}

/// The types that satisfy a container, best first: the cheapest, and every other one up to its
/// price times the price factor.
///
/// Ordered by price, then more RAM, more vCPUs, more scratch, then name. For a container that
/// prefers preemptible machines, those of the preemptible types come first, then the others, each
/// up to the cheapest of their own market times the factor. An error says which types come nearest
/// and what each of them lacks.
///
/// ```
/// use longshore_scheduler::{Config, type_choice::eligible};
/// use longshore_types::{ByteSize, InstanceType, Price, ResourceRequest};
/// let of = |name: &str, vcpus, price| {
///     let price = Price::from_units(price).unwrap();
///     InstanceType::new(name, vcpus, ByteSize::gib(8), price)
/// };
/// let config = Config::new(vec![of("dear", 9, 0.9), of("good", 4, 0.2), of("weak", 1, 0.1)]);
/// let mut request = ResourceRequest::default();
/// request.vcpus = 2;
/// let types = eligible(&request, &config).unwrap();
/// assert_eq!(types.len(), 1);
/// assert_eq!(types[0].name.as_str(), "good");
/// request.vcpus = 10;
/// let error = eligible(&request, &config).unwrap_err().to_string();
/// assert!(error.contains("dear has 9 vCPUs of 10 vCPUs needed"));
/// ```
pub fn eligible<'a>(
    request: &ResourceRequest,
    config: &'a Config,
) -> Result<Vec<&'a InstanceType>, Unsatisfiable> {
    let indexes = eligible_indexes(request, config)?;
    Ok(indexes.into_iter().map(|i| &config.types[i]).collect())
}

/// How a type stands to a container.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Fit {
    /// It may be used.
    Eligible,
    /// It satisfies it, and is by so many percent above the highest price that is allowed.
    TooDear(f64),
    /// It lacks something, a clause each.
    Lacks(Vec<String>),
}

/// Every type, by its place in the list, with how it stands to a container: those that may be used,
/// best first, then the least dear, then those that lack least.
pub(crate) fn considered(request: &ResourceRequest, config: &Config) -> Vec<(usize, Fit)> {
    let eligible = eligible_indexes(request, config).unwrap_or_default();
    let need = need(request, config);
    let fitting: Vec<(usize, &InstanceType)> = eligible
        .iter()
        .map(|&index| (index, &config.types[index]))
        .collect();
    let caps = [false, true].map(|market| cap(&fitting, market, config));
    let mut rest: Vec<(usize, Fit)> = (0..config.types.len())
        .filter(|index| !eligible.contains(index))
        .map(|index| {
            let t = &config.types[index];
            let lacks = lacks(request, &need, t);
            let fit = match caps[usize::from(t.preemptible)] {
                Some(cap) if lacks.is_empty() => Fit::TooDear(percent_above(t.price, cap)),
                _ => Fit::Lacks(lacks),
            };
            (index, fit)
        })
        .collect();
    let far = |fit: &Fit| match fit {
        Fit::Lacks(lacks) => lacks.len(),
        _ => 0,
    };
    rest.sort_by(|(a, x), (b, y)| {
        let (a, b) = (&config.types[*a], &config.types[*b]);
        // Of those that are too small, the largest comes nearest.
        let size = if far(x) == 0 {
            preference(a, b)
        } else {
            preference(b, a)
        };
        far(x).cmp(&far(y)).then(size)
    });
    let eligible = eligible.into_iter().map(|index| (index, Fit::Eligible));
    eligible.chain(rest).collect()
}

/// By how many percent a price is above another; beyond a million it makes no difference.
fn percent_above(price: Price, cap: Price) -> f64 {
    let percent = (price.units() / cap.units() - 1.0) * 100.0;
    if percent.is_finite() {
        percent.clamp(0.0, 1e6)
    } else {
        1e6
    }
}

/// The same as places in the list of types.
pub(crate) fn eligible_indexes(
    request: &ResourceRequest,
    config: &Config,
) -> Result<Vec<usize>, Unsatisfiable> {
    if config.types.is_empty() {
        return Err(Unsatisfiable::NoTypes);
    }
    let need = need(request, config);
    let types = config.types.iter().enumerate();
    let mut fitting: Vec<(usize, &InstanceType)> = types
        .filter(|(_, t)| lacks(request, &need, t).is_empty())
        .collect();
    if fitting.is_empty() {
        return Err(Unsatisfiable::NoneFits {
            nearest: nearest(request, &need, config),
        });
    }
    // One market, unless either will do.
    fitting.sort_by(|(_, a), (_, b)| {
        let market = b.preemptible.cmp(&a.preemptible);
        market.then_with(|| preference(a, b))
    });
    let caps = [false, true].map(|market| cap(&fitting, market, config));
    fitting.retain(|(_, t)| caps[usize::from(t.preemptible)].is_some_and(|cap| t.price <= cap));
    Ok(fitting.into_iter().map(|(index, _)| index).collect())
}

/// The highest price that is allowed in a market, none if nothing fits there.
fn cap(fitting: &[(usize, &InstanceType)], preemptible: bool, config: &Config) -> Option<Price> {
    let of_market = fitting.iter().filter(|(_, t)| t.preemptible == preemptible);
    let cheapest = of_market.map(|(_, t)| t.price).min()?;
    Some(cheapest.scaled(config.maximum_price_factor))
}

/// What a container is granted: what it asks for, and what its supervisor and the reserve need.
///
/// RAM is what it asks for, its cache, the reserve, and with buffers 220 MiB and 70.4 MiB for each
/// of them; of that, times 100 / 95. Scratch is the larger of what it asks for and its image,
/// the image once more, and its cache on disk. Both are in bytes, and saturate.
///
/// ```
/// use longshore_scheduler::{Config, type_choice::need};
/// use longshore_types::{ByteSize, ResourceRequest};
/// let mut config = Config::new(vec![]);
/// (config.keep_buffers_per_vcpu, config.reserve_extra_ram) = (0, ByteSize::ZERO);
/// let mut request = ResourceRequest::default();
/// request.ram = ByteSize::mib(95);
/// assert_eq!(need(&request, &config).ram, ByteSize::mib(100));
/// ```
pub fn need(request: &ResourceRequest, config: &Config) -> Resources {
    let mut ram = u128::from(request.ram.0)
        + u128::from(request.keep_cache_ram.0)
        + u128::from(config.reserve_extra_ram.0);
    if config.keep_buffers_per_vcpu > 0 {
        let buffers = u128::from(config.keep_buffers_per_vcpu) * u128::from(request.vcpus);
        ram += 220 * MIB + buffers * 64 * MIB * 11 / 10;
    }
    // Of its advertised RAM, a machine leaves 5 % to its kernel.
    let ram = ram * 100 / 95;
    let scratch = u128::from(request.scratch.0.max(request.image.0))
        + u128::from(request.image.0)
        + u128::from(request.keep_cache_disk.0);
    Resources {
        vcpus: request.vcpus,
        ram: saturate(ram),
        scratch: saturate(scratch),
        gpus: request.gpu.as_ref().map_or(0, |gpu| gpu.device_count),
    }
}

fn saturate(bytes: u128) -> ByteSize {
    ByteSize(u64::try_from(bytes).unwrap_or(u64::MAX))
}

fn preference(a: &InstanceType, b: &InstanceType) -> Ordering {
    let key = |t: &InstanceType| {
        let has = t.resources();
        (
            t.price,
            Reverse(has.ram),
            Reverse(has.vcpus),
            Reverse(has.scratch),
        )
    };
    key(a).cmp(&key(b)).then_with(|| a.name.cmp(&b.name))
}

/// What a type lacks for a container, one clause each; empty if it satisfies it.
fn lacks(request: &ResourceRequest, need: &Resources, t: &InstanceType) -> Vec<String> {
    let mut lacks = Vec::new();
    let has = t.resources();
    let short = |resource| {
        format!(
            "has {} of {} needed",
            has.describe(resource),
            need.describe(resource)
        )
    };
    if need.scratch > has.scratch {
        lacks.push(short(Resource::Scratch));
    }
    if need.ram > has.ram {
        lacks.push(short(Resource::Ram));
    }
    if need.vcpus > has.vcpus {
        lacks.push(short(Resource::Vcpus));
    }
    if !request.preemptible.allows(t.preemptible) {
        lacks.push(format!("is {}", t.market()));
    }
    match (&request.gpu, &t.gpu) {
        (None, None) => {}
        (None, Some(_)) => lacks.push("is for containers that use GPUs".into()),
        (Some(_), None) => lacks.push("has no GPUs".into()),
        (Some(want), Some(have)) => gpu_lacks(want, have, &mut lacks),
    }
    lacks
}

fn gpu_lacks(want: &GpuRequest, have: &Gpu, lacks: &mut Vec<String>) {
    if want.stack != have.stack {
        lacks.push("has GPUs of another make".into());
        return;
    }
    if want.device_count > have.device_count {
        lacks.push(format!(
            "has {} GPUs of {} needed",
            have.device_count, want.device_count
        ));
    }
    if want.vram > have.vram {
        lacks.push(format!(
            "has GPUs with {} of {} memory needed",
            have.vram, want.vram
        ));
    }
    if want.device_count == 0 {
        return;
    }
    if compare_versions(&have.driver_version, &want.driver_version) == Ordering::Less {
        lacks.push(format!(
            "has GPU driver {} of {} needed",
            have.driver_version, want.driver_version
        ));
    }
    if !runs_on(want, &have.hardware_target) {
        lacks.push(format!(
            "has GPUs for {:?}, not for {}",
            have.hardware_target,
            if want.hardware_targets.is_empty() {
                "any, as the container names none".to_owned()
            } else {
                format!("{:?}", want.hardware_targets)
            }
        ));
    }
}

/// Whether software built for the wanted targets runs on hardware of this one.
///
/// A single CUDA target is the oldest that will do; of several, and with ROCm, one has to match.
fn runs_on(want: &GpuRequest, target: &str) -> bool {
    match (want.stack, want.hardware_targets.as_slice()) {
        (GpuStack::Cuda, [oldest]) => compare_versions(target, oldest) != Ordering::Less,
        (_, targets) => targets.iter().any(|t| t == target),
    }
}

/// Compares versions component by component, as numbers where both are; missing ones count as 0.
///
/// ```
/// use longshore_scheduler::type_choice::compare_versions;
/// assert!(compare_versions("9.0", "12.10").is_lt());
/// assert!(compare_versions("12", "12.0").is_eq());
/// ```
pub fn compare_versions(a: &str, b: &str) -> Ordering {
    let (mut left, mut right) = (a.trim().split('.'), b.trim().split('.'));
    loop {
        let order = match (left.next(), right.next()) {
            (None, None) => return Ordering::Equal,
            (a, b) => compare_components(a.unwrap_or("0"), b.unwrap_or("0")),
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}

fn compare_components(a: &str, b: &str) -> Ordering {
    let split = |text: &str| {
        let end = text
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len());
        let (digits, rest) = text.split_at(end);
        let digits = digits.trim_start_matches('0');
        // A longer run of digits without leading zeros is the larger number.
        (digits.len(), digits.to_owned(), rest.to_owned())
    };
    split(a).cmp(&split(b))
}

fn nearest(request: &ResourceRequest, need: &Resources, config: &Config) -> String {
    let mut types: Vec<(Vec<String>, &InstanceType)> = config
        .types
        .iter()
        .map(|t| (lacks(request, need, t), t))
        .collect();
    types.sort_by(|(a, s), (b, t)| a.len().cmp(&b.len()).then_with(|| preference(t, s)));
    let clauses: Vec<String> = types
        .iter()
        .take(NEAREST)
        .map(|(lacks, t)| format!("{} {}", t.name, lacks.join(" and ")))
        .collect();
    clauses.join("; ")
}
