//! Plans a queue: what would be locked, started and created now, and why the rest waits.
//!
//! `cargo run -p longshore-examples --example plan_a_queue -- [FILE]`
//!
//! A file has one thing on each line, its words separated by blanks; `#` begins a comment:
//!
//! ```text
//! type      NAME VCPUS RAM SCRATCH PRICE      # a kind of machine; the price is by the hour
//! held-off  TYPE REASON...                    # none of that type can be created now
//! worker    NAME TYPE                         # an idle machine
//! container NAME VCPUS RAM SCRATCH PRIORITY   # something queued, the oldest first
//! ```
//!
//! Sizes are like `512MiB` or `4GiB`. Without a file a queue is planned that shows most of it. The
//! program exits with 1 if the file cannot be read or understood.
#![expect(clippy::print_stdout, reason = "it is a program that shows something")]

use std::collections::BTreeMap;
use std::error::Error;

use longshore_scheduler::type_choice::need;
use longshore_scheduler::{Action, Config, Input, Limits, plan};
use longshore_types::{
    Container, ContainerUuid, InstanceType, Instant, Price, QueueEntry, Resource, ResourceRequest,
    Timestamp, WorkerView,
};

const QUEUE: &str = "\
type      small  2   4GiB  50GiB 0.10
type      large  8  32GiB 200GiB 0.40
type      huge  64 256GiB   1TiB 3.20
held-off  huge   the provider has no capacity for it until 12:40
worker    i-1    small
worker    i-2    large
container align  1   1GiB  10GiB 700
container sort   1   1GiB  10GiB 500
container merge  6  20GiB 100GiB 500
container call   2   2GiB   5GiB 400
container model 48 200GiB 500GiB 900
container stray 99   1GiB   1GiB 100
container later  1   1GiB   1GiB   0
";

const NOW: Instant = Instant::ZERO;

fn main() -> Result<(), Box<dyn Error>> {
    let text = match std::env::args().nth(1) {
        Some(path) => std::fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?,
        None => QUEUE.to_owned(),
    };
    let mut queue = Queue::default();
    for (index, line) in text.lines().enumerate() {
        let words = line.split('#').next().unwrap_or_default();
        let words: Vec<&str> = words.split_whitespace().collect();
        let number = index + 1;
        queue
            .read(&words)
            .map_err(|e| format!("line {number}: {e}"))?;
    }
    queue.print_plan();
    Ok(())
}

#[derive(Default)]
struct Queue {
    types: Vec<InstanceType>,
    limits: Limits,
    workers: Vec<WorkerView>,
    entries: Vec<QueueEntry>,
    names: BTreeMap<ContainerUuid, String>,
}

impl Queue {
    fn read(&mut self, words: &[&str]) -> Result<(), Box<dyn Error>> {
        match *words {
            [] => {}
            ["type", name, vcpus, ram, scratch, price] => {
                let price = Price::from_units(price.parse()?)?;
                let mut t = InstanceType::new(name, vcpus.parse()?, ram.parse()?, price);
                t.included_scratch = scratch.parse()?;
                self.types.push(t);
            }
            ["held-off", name, ref reason @ ..] if !reason.is_empty() => {
                let reason = reason.join(" ");
                self.limits.create_blocked.insert(name.into(), reason);
            }
            ["worker", name, of] => {
                let known = self.types.iter().find(|t| t.name.as_str() == of);
                let t = known.ok_or_else(|| format!("there is no type {of} above"))?;
                self.workers.push(WorkerView::idle(name, t, NOW));
            }
            ["container", name, vcpus, ram, scratch, priority] => {
                let request = ResourceRequest {
                    vcpus: vcpus.parse()?,
                    ram: ram.parse()?,
                    scratch: scratch.parse()?,
                    ..ResourceRequest::default()
                };
                self.add(name, request, priority.parse()?)?;
            }
            [first, ..] => return Err(format!("{first}: no such thing, or other words").into()),
        }
        Ok(())
    }

    fn add(
        &mut self,
        name: &str,
        request: ResourceRequest,
        priority: i64,
    ) -> Result<(), Box<dyn Error>> {
        let age = self.entries.len();
        let uuid: ContainerUuid = format!("queue-dz642-{age:015}").parse()?;
        let mut container = Container::queued(uuid, request);
        container.priority = priority;
        container.created_at = Timestamp(i64::try_from(age)?);
        self.names.insert(uuid, name.to_owned());
        self.entries.push(QueueEntry::new(container, NOW));
        Ok(())
    }

    fn print_plan(self) {
        let input = Input {
            config: Config::new(self.types),
            limits: self.limits,
            entries: self.entries,
            workers: self.workers,
            pendings: Vec::new(),
            now: NOW,
        };
        let plan = plan(&input);
        let name = |uuid: &ContainerUuid| self.names.get(uuid).map_or("?", String::as_str);
        println!("What each one is granted, its overhead included:");
        for entry in &input.entries {
            let need = need(&entry.container.request, &input.config);
            let [vcpus, ram, scratch] = [Resource::Vcpus, Resource::Ram, Resource::Scratch]
                .map(|resource| need.describe(resource));
            let name = name(&entry.container.uuid);
            println!("  {name}: {vcpus}, {ram}, {scratch}");
        }
        println!("What is done now:");
        for action in &plan.actions {
            println!("  {}", in_words(action, &name));
        }
        println!("How each of them stands:");
        for (uuid, reason) in &plan.reasons {
            println!("  {}: {reason}", name(uuid));
        }
    }
}

/// An action as a plain sentence. A fresh queue gives only some kinds.
fn in_words<'a>(action: &'a Action, name: &dyn Fn(&'a ContainerUuid) -> &'a str) -> String {
    match action {
        Action::Lock {
            uuid,
            instance: Some(instance),
        } => format!("{} is taken, to be started on {instance}", name(uuid)),
        Action::Lock { uuid, .. } => format!("{} is taken", name(uuid)),
        Action::Create { type_name } => format!("a new {type_name} is created"),
        Action::Forget { uuid } => format!("{} is left alone", name(uuid)),
        Action::GiveBack { instance } => format!("{instance} is given back"),
        other => format!("{other:?}"),
    }
}
