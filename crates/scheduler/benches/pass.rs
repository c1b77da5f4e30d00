//! What a scheduler costs, in statistics. One-shot figures: the example `pass`.
//!
//! `cargo bench -p longshore-scheduler`
#![expect(missing_docs, reason = "what the macros make is not documented")]

mod scene;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use longshore_scheduler::Config;
use longshore_scheduler::type_choice::eligible;
use longshore_types::{ByteSize, InstanceType, Price};
use scene::Queue;

fn passes(criterion: &mut Criterion) {
    for size in [1_000, 10_000] {
        let queue = Queue::new(size, size);
        criterion.bench_function(&format!("fill_and_drain/{size}"), |bencher| {
            let work = |queue: Queue| {
                let mut core = queue.fill();
                scene::drain(&mut core);
                core
            };
            bencher.iter_batched(|| queue.clone(), work, BatchSize::PerIteration);
        });
        let mut core = queue.clone().fill();
        scene::drain(&mut core);
        criterion.bench_function(&format!("one_change/{size}"), |bencher| {
            bencher.iter(|| {
                core.upsert_entry(scene::locked(99), scene::NOW);
                scene::drain(&mut core)
            });
        });
    }
}

fn choices(criterion: &mut Criterion) {
    for count in [10u32, 10_000] {
        let of = |n| {
            InstanceType::new(
                format!("t{n}"),
                1 + n % 64,
                ByteSize::gib(64),
                Price::default(),
            )
        };
        let config = Config::new((0..count).map(of).collect());
        let request = scene::entry(0).container.request;
        criterion.bench_function(&format!("type_choice/{count}"), |bencher| {
            bencher.iter(|| eligible(&request, &config).map(|types| types.len()));
        });
    }
}

criterion_group!(benches, passes, choices);
criterion_main!(benches);
