//! `longshore schema` and `longshore completions`.

use clap::CommandFactory as _;

use super::print;
use crate::cli::{Cli, CompletionsArgs, Schema};
use crate::ending::Ending;

/// Prints a JSON schema.
pub fn schema(schema: Schema) -> anyhow::Result<Ending> {
    match schema {
        Schema::Job => print(job_schema())?,
    }
    Ok(Ending::Succeeded)
}

/// The JSON schema of a job file, which is also in docs/.
pub fn job_schema() -> &'static str {
    include_str!("../../../../docs/job.schema.json")
}

/// Prints what a shell needs.
pub fn completions(args: CompletionsArgs) -> anyhow::Result<Ending> {
    let mut command = Cli::command();
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "longshore", &mut script);
    print(&String::from_utf8_lossy(&script))?;
    Ok(Ending::Succeeded)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::jobfile::JOB_KEYS;

    #[test]
    fn the_schema_has_the_keys_that_are_read() {
        let schema: serde_json::Value = serde_json::from_str(job_schema()).unwrap();
        let keys = schema["$defs"]["job"]["properties"]
            .as_object()
            .unwrap()
            .keys();
        let keys: BTreeSet<&str> = keys.map(String::as_str).collect();
        assert_eq!(
            keys,
            BTreeSet::from_iter(JOB_KEYS.iter().copied()),
            "docs/job.schema.json and what is read differ"
        );
    }
}
