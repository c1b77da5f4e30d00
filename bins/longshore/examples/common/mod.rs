//! What the loops that harm a real installation have in common: jobs that witness what happens to
//! them, a checker of what they say, and eyes on the store and the runners.

pub(crate) mod checker;
pub(crate) mod eye;
pub(crate) mod forgeries;
pub(crate) mod left;
pub(crate) mod output;
pub(crate) mod process;
pub(crate) mod random;
pub(crate) mod witness;

/// Tells whoever runs the loop.
#[expect(clippy::print_stdout, reason = "what a loop is for")]
pub(crate) fn say(line: &str) {
    println!("{line}");
}

/// A seed that was not used before.
pub(crate) fn fresh_seed() -> anyhow::Result<u64> {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("no random numbers: {error}"))?;
    Ok(u64::from(u32::from_le_bytes(bytes)))
}
