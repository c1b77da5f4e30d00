//! What an instance printed while it did not boot, where the provider can tell.

use std::time::Duration;

use longshore_types::InstanceId;

use crate::core::{Core, FlightAction, WorkerFlight};
use crate::effect::{EffectAction, Outcome};
use crate::text::one_line;

/// How many bytes of the end of it are asked for.
pub(crate) const MAX_CONSOLE: usize = 2048;
/// How many characters of that go into the error.
const MAX_SHOWN: usize = 600;
/// How long an instance that is to be given up is kept for it.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What is known of an instance's console.
#[derive(Debug, Default)]
pub(crate) enum Console {
    /// Nobody has asked.
    #[default]
    Unasked,
    /// Asked for, once.
    Asked,
    /// The end of what it printed.
    Known(String),
}

impl Core {
    /// Asks for the console of an instance that is to be given up, once; whether it does.
    pub(crate) fn ask_console(&mut self, id: &InstanceId) -> bool {
        let Some(worker) = self.workers.get_mut(id) else {
            return false;
        };
        if !self.config.console_output || !matches!(worker.console, Console::Unasked) {
            return false;
        }
        worker.console = Console::Asked;
        let about = FlightAction::OnWorker(id.clone(), worker.serial, WorkerFlight::Console);
        let action = EffectAction::Console(id.clone(), MAX_CONSOLE);
        let timeout = TIMEOUT.min(self.config.cloud_call_timeout);
        self.send(timeout, action, about).is_some()
    }

    pub(crate) fn on_console(&mut self, id: &InstanceId, outcome: Outcome) {
        let Some(worker) = self.workers.get_mut(id) else {
            return;
        };
        if let Outcome::Console(Ok(printed)) = outcome {
            worker.console = Console::Known(end_of(&printed));
        }
        // It may have booted meanwhile; else its time is over.
        self.on_boot_due(id);
    }

    /// An error of a boot, with what the instance printed.
    pub(crate) fn with_console(&self, id: &InstanceId, error: &str) -> String {
        let console = self.workers.get(id).map(|worker| &worker.console);
        let Some(Console::Known(text)) = console else {
            return error.to_owned();
        };
        let error: String = error.chars().take(MAX_SHOWN / 2).collect();
        match text.as_str() {
            "" => format!("{error}; its console is empty"),
            text => format!("{error}; its console ends with: {text}"),
        }
    }
}

/// The end of what was printed, as one line without runs of white space.
fn end_of(printed: &[u8]) -> String {
    let printed = String::from_utf8_lossy(printed);
    let words: Vec<&str> = printed.split_whitespace().collect();
    let text = words.join(" ");
    let surplus = text.chars().count().saturating_sub(MAX_SHOWN);
    one_line(&text.chars().skip(surplus).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_console_is_one_line() {
        assert_eq!(end_of(b"a\r\n\tb \x1b[0m\xff"), "a b  [0m\u{fffd}");
        let long = end_of("x y\n".repeat(1000).as_bytes());
        assert_eq!(long.chars().count(), MAX_SHOWN);
        assert!(long.ends_with("x y"));
        assert_eq!(end_of(b" \n"), "");
    }
}
