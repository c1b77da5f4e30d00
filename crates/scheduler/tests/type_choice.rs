//! Each clause of the rules by which types are chosen.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use longshore_scheduler::type_choice::{compare_versions, eligible, need};
use longshore_scheduler::{Config, Unsatisfiable};
use longshore_types::*;
use support::*;

fn names(request: &ResourceRequest, config: &Config) -> Vec<String> {
    eligible(request, config)
        .unwrap()
        .iter()
        .map(|t| t.name.to_string())
        .collect()
}

fn error(request: &ResourceRequest, config: &Config) -> String {
    eligible(request, config).unwrap_err().to_string()
}

#[test]
fn ram_need_counts_caches_reserve_and_buffers_in_integers() {
    let mut config = config();
    let ask = ResourceRequest {
        vcpus: 3,
        ram: ByteSize(1_000_000_007),
        keep_cache_ram: ByteSize(256 << 20),
        ..ResourceRequest::default()
    };
    config.keep_buffers_per_vcpu = 2;
    let mib = 1u64 << 20;
    let sum = 1_000_000_007 + 256 * mib + 550 * mib + 220 * mib + 6 * 64 * mib * 11 / 10;
    assert_eq!(need(&ask, &config).ram, ByteSize(sum * 100 / 95));
    config.keep_buffers_per_vcpu = 0;
    let sum = 1_000_000_007 + 256 * mib + 550 * mib;
    assert_eq!(need(&ask, &config).ram, ByteSize(sum * 100 / 95));
}

#[test]
fn scratch_need_counts_the_image_twice_or_makes_room_to_unpack_it() {
    let sizes = |scratch, image, cache| {
        let ask = ResourceRequest {
            scratch: ByteSize(scratch),
            image: ByteSize(image),
            keep_cache_disk: ByteSize(cache),
            ..ResourceRequest::default()
        };
        need(&ask, &config()).scratch.0
    };
    assert_eq!(sizes(100, 10, 1), 111);
    assert_eq!(sizes(10, 100, 1), 201);
    assert_eq!(sizes(u64::MAX, 5, 5), u64::MAX);
}

#[test]
fn ram_scratch_and_vcpus_each_exclude_types() {
    let mut config = config();
    config.maximum_price_factor = 100.0;
    assert_eq!(names(&request(1), &config), ["small", "medium", "large"]);
    assert_eq!(names(&request(3), &config), ["medium", "large"]);
    let mut ask = request(1);
    ask.ram = ByteSize::gib(10);
    assert_eq!(names(&ask, &config), ["medium", "large"]);
    config.types[2].added_scratch = ByteSize::gib(1);
    let mut ask = request(1);
    ask.scratch = ByteSize::gib(101);
    assert_eq!(names(&ask, &config), ["large"]);
}

#[test]
fn what_fits_exactly_fits() {
    let mut config = config();
    let need = need(&request(1), &config);
    config.types.truncate(1);
    config.types[0].ram = need.ram;
    config.types[0].vcpus = 1;
    config.types[0].included_scratch = need.scratch;
    assert_eq!(names(&request(1), &config), ["small"]);
    config.types[0].ram.0 -= 1;
    assert!(error(&request(1), &config).contains("RAM"));
}

#[test]
fn preemptible_has_to_be_equal_both_ways() {
    let mut config = config();
    config.types[0].preemptible = true;
    let mut ask = request(1);
    assert_eq!(names(&ask, &config), ["medium"]);
    ask.preemptible = Preemptible::Only;
    assert_eq!(names(&ask, &config), ["small"]);
}

#[test]
fn who_prefers_preemptible_types_has_them_first_and_each_market_has_its_cap() {
    let mut config = config();
    config.maximum_price_factor = 1.5;
    for (name, vcpus, price) in [
        ("spot", 2, 0.03),
        ("spot-dear", 2, 0.05),
        ("spot-small", 1, 0.01),
    ] {
        let mut t = instance_type(name, vcpus, price);
        t.preemptible = true;
        config.types.push(t);
    }
    let mut ask = request(2);
    ask.preemptible = Preemptible::Prefer;
    assert_eq!(names(&ask, &config), ["spot", "small"]);
    ask.preemptible = Preemptible::Only;
    assert_eq!(names(&ask, &config), ["spot"]);
    ask.preemptible = Preemptible::Never;
    assert_eq!(names(&ask, &config), ["small"]);
    // Where one market has nothing, the other one does.
    ask.preemptible = Preemptible::Prefer;
    ask.vcpus = 8;
    assert_eq!(names(&ask, &config), ["large"]);
    config.types.retain(|t| t.preemptible);
    ask.vcpus = 1;
    assert_eq!(names(&ask, &config), ["spot-small"]);
}

#[test]
fn the_price_cap_is_relative_to_the_cheapest_that_fits() {
    let mut config = config();
    config.types[1].price = Price::from_units(0.15).unwrap();
    assert_eq!(names(&request(1), &config), ["small", "medium"]);
    config.types[1].price = Price::from_units(0.150_000_001).unwrap();
    assert_eq!(names(&request(1), &config), ["small"]);
    // Less than 1 counts as 1: types of the same price stay.
    config.maximum_price_factor = 0.5;
    config.types[1].price = config.types[0].price;
    assert_eq!(names(&request(1), &config), ["medium", "small"]);
    // 0 is a price.
    config.types[2].price = Price::from_units(0.0).unwrap();
    assert_eq!(names(&request(1), &config), ["large"]);
}

#[test]
fn equal_prices_prefer_ram_then_vcpus_then_scratch_then_the_name() {
    let mut config = config();
    let base = instance_type("e", 2, 0.1);
    let change = |name: &str, change: &dyn Fn(&mut InstanceType)| {
        let mut t = base.clone();
        t.name = name.into();
        change(&mut t);
        t
    };
    config.types = vec![
        change("e", &|_| {}),
        change("d", &|_| {}),
        change("c", &|t| t.added_scratch = ByteSize::gib(1)),
        change("b", &|t| t.vcpus = 3),
        change("a", &|t| t.ram = ByteSize::gib(9)),
        change("0", &|t| t.price = Price::from_units(0.11).unwrap()),
    ];
    assert_eq!(names(&request(1), &config), ["a", "b", "c", "d", "e", "0"]);
}

fn gpu(stack: GpuStack, driver: &str, target: &str) -> Gpu {
    Gpu {
        stack,
        driver_version: driver.into(),
        hardware_target: target.into(),
        device_count: 2,
        vram: ByteSize::gib(16),
    }
}

fn want(stack: GpuStack, driver: &str, targets: &[&str]) -> GpuRequest {
    GpuRequest {
        stack,
        driver_version: driver.into(),
        hardware_targets: targets.iter().map(|t| (*t).into()).collect(),
        device_count: 1,
        vram: ByteSize::gib(8),
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table, one row for each clause")]
fn gpu_clauses() {
    use GpuStack::{Cuda, Rocm};
    let cuda = gpu(Cuda, "12.10", "9.0");
    let rocm = gpu(Rocm, "6.2", "gfx90a");
    let changed = |change: &dyn Fn(&mut GpuRequest)| {
        let mut w = want(Cuda, "12.2", &["8.6"]);
        change(&mut w);
        w
    };
    let table: Vec<(&str, Option<Gpu>, Option<GpuRequest>, bool)> = vec![
        ("neither", None, None, true),
        ("none wanted", Some(cuda.clone()), None, false),
        ("none there", None, Some(changed(&|_| {})), false),
        ("fits", Some(cuda.clone()), Some(changed(&|_| {})), true),
        (
            "other stack",
            Some(rocm.clone()),
            Some(changed(&|_| {})),
            false,
        ),
        (
            "all devices",
            Some(cuda.clone()),
            Some(changed(&|w| w.device_count = 2)),
            true,
        ),
        (
            "too many devices",
            Some(cuda.clone()),
            Some(changed(&|w| w.device_count = 3)),
            false,
        ),
        (
            "all memory",
            Some(cuda.clone()),
            Some(changed(&|w| w.vram = ByteSize::gib(16))),
            true,
        ),
        (
            "too much memory",
            Some(cuda.clone()),
            Some(changed(&|w| w.vram = ByteSize::gib(17))),
            false,
        ),
        (
            "by component, not as text",
            Some(cuda.clone()),
            Some(want(Cuda, "12.9", &["8.6"])),
            true,
        ),
        (
            "driver too old",
            Some(cuda.clone()),
            Some(want(Cuda, "12.11", &["8.6"])),
            false,
        ),
        (
            "one target: at least",
            Some(cuda.clone()),
            Some(want(Cuda, "12.2", &["9.0"])),
            true,
        ),
        (
            "one target: newer",
            Some(cuda.clone()),
            Some(want(Cuda, "12.2", &["10.0"])),
            false,
        ),
        (
            "several: a member",
            Some(cuda.clone()),
            Some(want(Cuda, "12.2", &["8.6", "9.0"])),
            true,
        ),
        (
            "several: no member",
            Some(cuda.clone()),
            Some(want(Cuda, "12.2", &["8.0", "8.6"])),
            false,
        ),
        (
            "no target: never",
            Some(cuda.clone()),
            Some(want(Cuda, "12.2", &[])),
            false,
        ),
        (
            "rocm member",
            Some(rocm.clone()),
            Some(want(Rocm, "6.2", &["gfx90a"])),
            true,
        ),
        (
            "rocm is exact",
            Some(rocm.clone()),
            Some(want(Rocm, "6.2", &["gfx900"])),
            false,
        ),
        (
            "rocm without target",
            Some(rocm),
            Some(want(Rocm, "6.2", &[])),
            false,
        ),
        (
            "no devices: neither driver nor target matter",
            Some(cuda),
            Some(changed(&|w| {
                w.device_count = 0;
                w.driver_version = "99".into();
                w.hardware_targets.clear();
            })),
            true,
        ),
    ];
    for (name, have, ask, fits) in table {
        let mut config = config();
        config.types.truncate(1);
        config.types[0].gpu = have;
        let mut request = request(1);
        request.gpu = ask;
        assert_eq!(eligible(&request, &config).is_ok(), fits, "{name}");
    }
}

#[test]
fn versions_compare_by_component() {
    use std::cmp::Ordering::*;
    for (a, b, order) in [
        ("9.0", "10.0", Less),
        ("12", "12.0", Equal),
        ("12.0.1", "12", Greater),
        ("535.104.05", "535.104.5", Equal),
        ("1.2a", "1.2", Greater),
        ("", "0", Equal),
        ("99999999999999999999.1", "99999999999999999999.2", Less),
    ] {
        assert_eq!(compare_versions(a, b), order, "{a} {b}");
        assert_eq!(compare_versions(b, a), order.reverse(), "{b} {a}");
    }
}

#[test]
fn errors_name_the_nearest_types_and_what_each_lacks() {
    let mut config = config();
    let mut ask = request(9);
    ask.scratch = ByteSize::gib(200);
    config.types[2].added_scratch = ByteSize::gib(300);
    assert_eq!(
        error(&ask, &config),
        "constraints not satisfiable by any configured instance type: \
         large has 8 vCPUs of 9 vCPUs needed; \
         medium has 100 GiB scratch of 200 GiB scratch needed and has 4 vCPUs of 9 vCPUs needed; \
         small has 100 GiB scratch of 200 GiB scratch needed and has 2 vCPUs of 9 vCPUs needed"
    );
    config.types.clear();
    assert_eq!(eligible(&ask, &config), Err(Unsatisfiable::NoTypes));
    assert_eq!(
        error(&ask, &config),
        "site configuration does not list any instance types"
    );
}
