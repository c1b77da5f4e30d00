//! The network between the dispatcher and the hosts: a bridge, and a cable to each.

use anyhow::Result;

use crate::commands::run;

const BRIDGE: &str = "gateway";

/// Makes the bridge, in the network namespace of this process.
pub(crate) fn make_bridge() -> Result<()> {
    run("ip link set lo up")?;
    run(&format!("ip link add {BRIDGE} type bridge forward_delay 0"))?;
    run(&format!("ip addr add 10.99.0.1/24 dev {BRIDGE}"))?;
    run(&format!("ip link set {BRIDGE} up"))?;
    Ok(())
}

/// Where the host in this place is reached.
pub(crate) fn address(slot: usize) -> String {
    format!("10.99.0.{}", 10 + slot)
}

/// Our end of the cable to this place.
fn cable(slot: usize) -> String {
    format!("host{slot}")
}

/// Connects a host, whose first process is `init`.
pub(crate) fn plug_in(slot: usize, init: u32) -> Result<()> {
    unplug(slot)?;
    let (cable, address) = (cable(slot), address(slot));
    run(&format!(
        "ip link add {cable} type veth peer name eth0 address 02:00:00:00:00:{slot:02x} netns {init}"
    ))?;
    run(&format!("ip link set {cable} master {BRIDGE} up"))?;
    let inside = format!("nsenter --target {init} --net ip");
    run(&format!("{inside} addr add {address}/24 dev eth0"))?;
    run(&format!("{inside} link set eth0 up"))?;
    Ok(())
}

/// Takes the cable away, if there is one.
pub(crate) fn unplug(slot: usize) -> Result<()> {
    if is_plugged(slot) {
        let gone = run(&format!("ip link del {}", cable(slot)));
        // It goes by itself with the namespace of the host.
        if is_plugged(slot) {
            gone?;
        }
    }
    Ok(())
}

fn is_plugged(slot: usize) -> bool {
    run(&format!("ip link show {}", cable(slot))).is_ok()
}

/// Cuts the cable, or mends it; whether there is one.
pub(crate) fn set_cable(slot: usize, up: bool) -> bool {
    let state = if up { "up" } else { "down" };
    run(&format!("ip link set {} {state}", cable(slot))).is_ok()
}

/// Every interface.
pub(crate) fn interfaces() -> Result<Vec<String>> {
    let listing = run("ip -oneline link show")?;
    let name = |line: &str| Some(line.split(": ").nth(1)?.to_owned());
    Ok(listing.lines().filter_map(name).collect())
}
