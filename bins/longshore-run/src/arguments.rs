//! The command line.

use std::ffi::OsString;
use std::time::Duration;

use longshore_runner_api::command::{
    GuardOptions, MAX_ACKS, MAX_WAIT, OutputStream, ReportOptions,
};
use longshore_runner_api::report::{MAX_TEXT, parse_acks};
use longshore_runner_api::watch::DISPATCHER_SILENCE;
use longshore_types::{Attempt, ContainerUuid};

use crate::output::Part;

pub(crate) const HELP: &str = "\
Supervises containers on this machine.

  longshore-run --detach --stdin-config --attempt N UUID   start what the document on standard
                                                           input says
  longshore-run --kill SIGNAL [--attempt N] UUID           ask it to end; wait up to 1 s
  longshore-run --report [--wait-ms N --known DIGEST] [--ack UUID:N,...]
  longshore-run --list                                     what runs, for people
  longshore-run --watch [--silence SECONDS]                answer the requests on standard input,
                                                           until none came for so long (180)
  longshore-run --output stdout|stderr [--last BYTES | --from BYTE --length BYTES]
                --attempt N UUID
  longshore-run --guard SECONDS [--guard-results SECONDS] [--power-off COMMAND]
                                                           power this machine off when no command
                                                           came and nothing ran for so long
  longshore-run --version | --help

Options may have one dash or two. SIGNAL 9 ends the container's processes at once, 0 only asks
whether it is there, any other asks them to end and ends them after the time that the document
gives. LONGSHORE_RUN_DIR is the directory of all files (/var/lib/longshore-run).

Exit codes: 0 done; 1 failed, not started, or still alive after --kill; 2 wrong arguments;
3 this attempt, or a newer one, was started or killed before.
";

/// What the program was asked to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Help,
    Version,
    Start {
        uuid: ContainerUuid,
        attempt: Attempt,
    },
    Kill {
        signal: u8,
        uuid: ContainerUuid,
        attempt: Option<Attempt>,
    },
    Report(ReportOptions),
    Guard(GuardOptions),
    List,
    Watch {
        /// How long nothing may come.
        silence: Duration,
    },
    Output {
        stream: OutputStream,
        part: Part,
        uuid: ContainerUuid,
        attempt: Attempt,
    },
}

#[derive(Default)]
struct Given {
    modes: Vec<Mode>,
    stdin_config: bool,
    attempt: Option<Attempt>,
    wait_ms: Option<u64>,
    known: Option<String>,
    acks: Option<Vec<(ContainerUuid, Attempt)>>,
    last: Option<u64>,
    from: Option<u64>,
    length: Option<u64>,
    silence: Option<Duration>,
    guard_results: Option<Duration>,
    power_off: Option<String>,
    uuid: Option<ContainerUuid>,
}

enum Mode {
    Help,
    Version,
    Detach,
    Kill(u8),
    Report,
    Guard(Duration),
    List,
    Watch,
    Output(OutputStream),
}

/// Reads the arguments after the program's name; the error is a text for people.
pub(crate) fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Command, String> {
    let mut words = arguments.map(|word| {
        word.into_string()
            .map_err(|word| format!("argument {word:?} is not UTF-8"))
    });
    let mut given = Given::default();
    while let Some(word) = words.next() {
        let word = word?;
        match word.strip_prefix('-') {
            Some(rest) if !rest.is_empty() => {
                let name = rest.strip_prefix('-').unwrap_or(rest);
                let (name, value) = match name.split_once('=') {
                    Some((name, value)) => (name, Some(value.to_owned())),
                    None => (name, None),
                };
                option(&mut given, name, value, &mut words)?;
            }
            _ => {
                let uuid = word.parse().map_err(|error| format!("{error}"))?;
                if given.uuid.replace(uuid).is_some() {
                    return Err("more than one container".into());
                }
            }
        }
    }
    command(given)
}

fn option(
    given: &mut Given,
    name: &str,
    inline: Option<String>,
    words: &mut dyn Iterator<Item = Result<String, String>>,
) -> Result<(), String> {
    let plain = !matches!(
        name,
        "kill"
            | "attempt"
            | "wait-ms"
            | "known"
            | "ack"
            | "output"
            | "last"
            | "from"
            | "length"
            | "silence"
            | "guard"
            | "guard-results"
            | "power-off"
    );
    if plain && inline.is_some() {
        return Err(format!("--{name} takes no value"));
    }
    let mut value = || match inline.clone() {
        Some(value) => Ok(value),
        None => words
            .next()
            .unwrap_or_else(|| Err(format!("--{name} needs a value"))),
    };
    let wrong = |value: &str| format!("--{name}: {value:.100?} is not valid");
    match name {
        "help" | "h" => given.modes.push(Mode::Help),
        "version" => given.modes.push(Mode::Version),
        "detach" => given.modes.push(Mode::Detach),
        "report" => given.modes.push(Mode::Report),
        "list" => given.modes.push(Mode::List),
        "watch" => given.modes.push(Mode::Watch),
        "stdin-config" => given.stdin_config = true,
        "kill" => {
            let text = value()?;
            let signal = text.parse().ok().filter(|signal| *signal <= 64);
            given.modes.push(Mode::Kill(signal.ok_or(wrong(&text))?));
        }
        "output" => {
            let text = value()?;
            let stream = OutputStream::ALL.into_iter().find(|s| s.as_str() == text);
            given.modes.push(Mode::Output(stream.ok_or(wrong(&text))?));
        }
        "guard" => {
            let text = value()?;
            given
                .modes
                .push(Mode::Guard(seconds(&text).ok_or(wrong(&text))?));
        }
        "silence" => {
            let text = value()?;
            given.silence = Some(seconds(&text).ok_or(wrong(&text))?);
        }
        "guard-results" => {
            let text = value()?;
            given.guard_results = Some(seconds(&text).ok_or(wrong(&text))?);
        }
        "power-off" => given.power_off = Some(value()?),
        "attempt" => {
            let text = value()?;
            given.attempt = Some(Attempt(text.parse().map_err(|_| wrong(&text))?));
        }
        "wait-ms" => {
            let text = value()?;
            given.wait_ms = Some(text.parse().map_err(|_| wrong(&text))?);
        }
        "last" | "from" | "length" => {
            let text = value()?;
            let number = Some(text.parse().map_err(|_| wrong(&text))?);
            match name {
                "last" => given.last = number,
                "from" => given.from = number,
                _ => given.length = number,
            }
        }
        "known" => {
            let text = value()?;
            given.known = Some(text).filter(|text| text.len() <= MAX_TEXT);
        }
        "ack" => {
            let text = value()?;
            let acks = parse_acks(&text).filter(|acks| acks.len() <= MAX_ACKS);
            given.acks = Some(acks.ok_or(wrong(&text))?);
        }
        _ => return Err(format!("unknown option --{name}")),
    }
    Ok(())
}

/// A time that is waited: a second at least, a year at most.
fn seconds(text: &str) -> Option<Duration> {
    let seconds: u64 = text.parse().ok()?;
    (1..=366 * 24 * 3600)
        .contains(&seconds)
        .then(|| Duration::from_secs(seconds))
}

fn command(mut given: Given) -> Result<Command, String> {
    let mode = match (given.modes.pop(), given.modes.pop()) {
        (Some(mode), None) => mode,
        (None, _) => return Err("nothing to do".into()),
        _ => return Err("more than one thing to do".into()),
    };
    let uuid = given.uuid.ok_or("no container UUID");
    let attempt = given.attempt.ok_or("no --attempt");
    let command = match mode {
        Mode::Help => return Ok(Command::Help),
        Mode::Version => return Ok(Command::Version),
        Mode::Detach if !given.stdin_config => {
            return Err("--detach needs --stdin-config".into());
        }
        Mode::Detach => Command::Start {
            uuid: uuid?,
            attempt: attempt?,
        },
        Mode::Kill(signal) => Command::Kill {
            signal,
            uuid: uuid?,
            attempt: given.attempt,
        },
        Mode::Report => Command::Report(ReportOptions {
            acks: given.acks.take().unwrap_or_default(),
            wait: Duration::from_millis(given.wait_ms.unwrap_or(0)).min(MAX_WAIT),
            known: given.known.take().unwrap_or_default(),
        }),
        Mode::Guard(after) => Command::Guard(GuardOptions {
            after,
            after_with_results: given
                .guard_results
                .unwrap_or(GuardOptions::default().after_with_results),
            power_off: given.power_off.take(),
        }),
        Mode::List => Command::List,
        Mode::Watch => Command::Watch {
            silence: given.silence.unwrap_or(DISPATCHER_SILENCE),
        },
        Mode::Output(stream) => Command::Output {
            stream,
            part: part(given.last, given.from, given.length)?,
            uuid: uuid?,
            attempt: attempt?,
        },
    };
    Ok(command)
}

fn part(last: Option<u64>, from: Option<u64>, length: Option<u64>) -> Result<Part, String> {
    match (last, from, length) {
        (None, None, None) => Ok(Part::All),
        (Some(last), None, None) => Ok(Part::Last(last)),
        (None, Some(from), Some(length)) => Ok(Part::Window { from, length }),
        _ => Err("--output takes --last, or both --from and --length".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "zzzzz-dz642-0123456789abcde";

    fn read(line: &str) -> Result<Command, String> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn the_documented_lines_are_read() {
        let uuid = UUID.parse().unwrap();
        let attempt = Attempt(2);
        assert_eq!(
            read(&format!("--detach --stdin-config --attempt 2 {UUID}")),
            Ok(Command::Start { uuid, attempt })
        );
        assert_eq!(
            read(&format!("-kill=15 -attempt 2 {UUID}")),
            Ok(Command::Kill {
                signal: 15,
                uuid,
                attempt: Some(attempt)
            })
        );
        assert_eq!(
            read(&format!(
                "--report --wait-ms 90000 --known ab --ack {UUID}:2"
            )),
            Ok(Command::Report(ReportOptions {
                acks: vec![(uuid, attempt)],
                wait: MAX_WAIT,
                known: "ab".into()
            }))
        );
        let silence = DISPATCHER_SILENCE;
        assert_eq!(read("--watch"), Ok(Command::Watch { silence }));
        let silence = Duration::from_secs(5);
        assert_eq!(read("--watch --silence 5"), Ok(Command::Watch { silence }));
        assert_eq!(
            read(&format!("--output stderr --last 9 --attempt 2 {UUID}")),
            Ok(Command::Output {
                stream: OutputStream::Stderr,
                part: Part::Last(9),
                uuid,
                attempt
            })
        );
        assert_eq!(
            read(&format!(
                "--output stdout --from 5 --length 9 --attempt 2 {UUID}"
            )),
            Ok(Command::Output {
                stream: OutputStream::Stdout,
                part: Part::Window { from: 5, length: 9 },
                uuid,
                attempt
            })
        );
    }

    #[test]
    fn anything_else_is_refused() {
        for line in [
            "",
            "--detach",
            "--report --list",
            "--report=1",
            "--unknown",
            "--kill",
            "-",
            "--detach --stdin-config --attempt 1",
            "--ack x --report",
            &format!("--detach --attempt 1 {UUID}"),
            &format!("--detach --stdin-config {UUID}"),
            &format!("--detach --stdin-config --attempt -1 {UUID}"),
            &format!("--detach --stdin-config --attempt 1 {UUID} {UUID}"),
            &format!("--output stdout --from 5 --attempt 1 {UUID}"),
            &format!("--output stdout --last 5 --from 5 --length 5 --attempt 1 {UUID}"),
            &format!("--kill 65 {UUID}"),
            &format!("--kill TERM {UUID}"),
            &format!("--output both --attempt 1 {UUID}"),
            "--watch --silence 0",
            "--kill 9 ../../etc/passwd",
        ] {
            assert!(read(line).is_err(), "{line}");
        }
    }
}
