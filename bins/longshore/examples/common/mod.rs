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

use std::path::PathBuf;

use anyhow::{Result, anyhow};

/// Tells whoever runs the loop.
#[expect(clippy::print_stdout, reason = "what a loop is for")]
pub(crate) fn say(line: &str) {
    println!("{line}");
}

/// A loop that was begun.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) seed: u64,
    /// Where everything is.
    pub(crate) folder: PathBuf,
}

impl Session {
    /// Sees that the checker finds forged wrongs, and makes a folder and, if need be, a seed.
    pub(crate) fn begin(name: &str, seed: Option<u64>) -> Result<Self> {
        let caught = forgeries::self_test().map_err(|what| anyhow!(what))?;
        say(&format!(
            "self-test: the checker catches {caught} forged wrongs, doubles among them"
        ));
        let seed = match seed {
            Some(seed) => seed,
            None => fresh_seed()?,
        };
        let folder = tempfile::Builder::new()
            .prefix(&format!("longshore-{name}."))
            .tempdir()?;
        let folder = folder.keep();
        say(&format!("seed {seed}, in {}", folder.display()));
        Ok(Self { seed, folder })
    }

    /// Tells what is wrong, and keeps the folder then; whether nothing is.
    pub(crate) fn end(self, wrongs: &[String]) -> Result<bool> {
        for wrong in wrongs {
            say(&format!("WRONG: {wrong}"));
        }
        if wrongs.is_empty() {
            std::fs::remove_dir_all(&self.folder)?;
            return Ok(true);
        }
        say(&format!(
            "failed; everything is kept in {}; --seed {}",
            self.folder.display(),
            self.seed
        ));
        Ok(false)
    }
}

/// A seed that was not used before.
fn fresh_seed() -> Result<u64> {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes).map_err(|error| anyhow!("no random numbers: {error}"))?;
    Ok(u64::from(u32::from_le_bytes(bytes)))
}
