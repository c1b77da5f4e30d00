//! Secrets and tokens, drawn from the seed.

use std::fmt::Write as _;

use longshore_cloud::Tags;
use longshore_runner_api::command::quote;
use sha2::{Digest, Sha256};

use crate::config::Config;

/// Draws texts that nobody without the seed can guess; no two are alike.
#[derive(Debug)]
pub(crate) struct Secrets {
    seed: [u8; 32],
    counter: u64,
}

impl Secrets {
    pub(crate) fn new(seed: [u8; 32]) -> Self {
        Self { seed, counter: 0 }
    }

    /// 40 lower-case hex digits.
    pub(crate) fn draw(&mut self) -> String {
        self.counter += 1;
        let digest = Sha256::new()
            .chain_update(self.seed)
            .chain_update(self.counter.to_be_bytes())
            .finalize();
        let mut text = String::with_capacity(40);
        for byte in digest.iter().take(20) {
            let _ = write!(text, "{byte:02x}");
        }
        text
    }
}

/// The script that an instance runs when it first boots. The restrictive mask holds for the
/// secret's file only, not for the operator's command.
pub(crate) fn init_script(config: &Config, secret: &str) -> String {
    let mut script = String::from("#!/bin/sh\n");
    if !config.secret_path.is_empty() {
        let (secret, path) = (quote(secret), quote(&config.secret_path));
        let _ = writeln!(script, "(umask 077 && printf %s {secret} > {path})");
    }
    let _ = writeln!(script, "{}", config.init_command);
    script
}

/// The tags by which our instances are listed.
pub(crate) fn set_tags(config: &Config) -> Tags {
    let id = config.instance_set_id.clone();
    [(config.tag_keys.set_id.clone(), id)].into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_40_hex_digits_and_differ() {
        let mut secrets = Secrets::new([7; 32]);
        let (a, b) = (secrets.draw(), secrets.draw());
        assert_ne!(a, b);
        assert_eq!(a.len(), 40);
        assert!(
            a.bytes()
                .all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c))
        );
        assert_eq!(Secrets::new([7; 32]).draw(), a);
    }

    #[test]
    fn the_mask_ends_before_the_operators_command() {
        let mut config = Config::new("set", Vec::new());
        config.init_command = "umask > /tmp/x".into();
        let script = init_script(&config, "abc");
        let lines: Vec<&str> = script.lines().collect();
        assert_eq!(
            lines,
            [
                "#!/bin/sh",
                "(umask 077 && printf %s 'abc' > '/var/run/arvados-instance-secret')",
                "umask > /tmp/x",
            ]
        );
    }

    #[test]
    fn without_a_path_no_secret_is_written() {
        let mut config = Config::new("set", Vec::new());
        config.secret_path = String::new();
        config.init_command = "true".into();
        assert_eq!(init_script(&config, "abc"), "#!/bin/sh\ntrue\n");
    }
}
