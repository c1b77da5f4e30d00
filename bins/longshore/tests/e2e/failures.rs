//! What a run or a service does when it cannot go on, and what it leaves to others.

use std::sync::Arc;

use clap::Parser as _;
use longshore::cli::{Cli, Command};
use longshore::ending::Ending;
use longshore::provider::{Provider, this_machine};
use longshore::run::run_on;
use longshore::service::serve::serve_until;
use longshore::state::StateDirectory;
use longshore_dispatch::Notice;
use longshore_dispatch::runtime::Observer;
use longshore_queue::Call;

use super::service::{Service, clean};
use super::world::{World, wait_for};

/// This machine, and a bug in the dispatcher, which ends at the first notice that is like this.
async fn doomed(state: &StateDirectory, fatal: fn(&Notice) -> bool) -> anyhow::Result<Provider> {
    let mut provider = Provider::loopback(state).await?;
    let observer = move |notice: &Notice| assert!(!fatal(notice), "a bug");
    provider.observer = Some(Observer(Arc::new(observer)));
    Ok(provider)
}

#[test]
fn a_run_whose_dispatcher_fails_names_what_it_leaves() {
    let world = World::new();
    world.jobs("one", "  - {name: long, command: 'sleep 600'}\n");
    let file = world.path("one");
    let cli = Cli::parse_from(["longshore", "run", "-q", file.to_str().unwrap()]);
    let Command::Run(args) = cli.command else {
        panic!("it is something else than run");
    };
    longshore::state_dir::create(&world.state()).unwrap();
    let open = async |state: &StateDirectory| {
        doomed(state, |notice| {
            matches!(notice, Notice::Told(_, Call::Running { .. }))
        })
        .await
    };
    let ending = run_on(&args, &world.state(), &[this_machine().unwrap()], open);
    assert_eq!(ending.unwrap(), Ending::InstancesLeft);
    assert_eq!(world.instances().len(), 1);
    clean(&world);
}

#[test]
fn a_service_whose_dispatcher_fails_ends() {
    let world = World::new();
    world.jobs("one", "  - {name: long, command: 'sleep 600'}\n");
    let service = Service::start(&world, &[]);
    world.run(&["submit", "one"]).expect(0);
    service.kill();
    // So that there is something to be done for the job, whatever became of it.
    world.run(&["cleanup"]).expect(0);
    let cli = Cli::parse_from(["longshore", "serve", "--listen", "off"]);
    let Command::Serve(args) = cli.command else {
        panic!("it is something else than serve");
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let error = runtime.block_on(async {
        let state = StateDirectory::open(&world.state()).unwrap();
        let provider = doomed(&state, |_| true).await.unwrap();
        let served = serve_until(&args, &state, provider, std::future::pending()).await;
        served.unwrap_err().to_string()
    });
    assert!(error.contains("the dispatcher has ended"), "{error}");
    clean(&world);
}

#[test]
fn a_file_that_fails_leaves_the_jobs_of_the_next_alone_if_they_are_there() {
    let world = World::new();
    world.jobs("bad", "  - {name: bad, command: 'false'}\n");
    world.jobs(
        "other",
        "  - {name: other, command: 'touch $W/began; until [ -e $W/go ]; do sleep 0.1; done'}\n",
    );
    let service = Service::start(&world, &[]);
    world.run(&["submit", "other"]).expect(0);
    let said = world.run(&["run", "bad", "other"]).expect(1);
    said.complains(&["not followed: ", "other"]);
    world.touch("go");
    let said = world.run(&["logs", "-f", "other"]).expect(0);
    assert!(world.exists("began"), "{said:?}");
    service.stop();
    clean(&world);
}

#[test]
fn a_run_that_ends_says_which_jobs_of_others_it_leaves() {
    let world = World::new();
    world.jobs(
        "own",
        "  - {name: own, command: 'touch $W/began; until [ -e $W/go ]; do sleep 0.1; done'}\n",
    );
    let running = world.start(&["run", "-q", "own"]);
    wait_for("the job to begin", || world.exists("began").then_some(()));
    // Nothing more is started, however soon it is submitted.
    let instances = world.instances();
    world.run(&["instance", "hold", &instances[0]]).expect(0);
    world
        .run(&["submit", "--name", "other", "--", "touch", "other"])
        .expect(0);
    world.touch("go");
    let said = running.end().expect(0);
    said.complains(&["left waiting: 1 job", "longshore serve"]);
    assert!(!world.exists("other"));
    clean(&world);
}
