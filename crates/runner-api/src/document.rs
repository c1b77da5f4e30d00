//! The start document: what a container is to run.

use std::collections::BTreeMap;

use longshore_types::{Attempt, ByteSize, ContainerUuid};
use serde::{Deserialize, Serialize};

/// The version of [`StartDocument`] that this crate writes and reads.
pub const START_DOCUMENT_VERSION: u32 = 1;
/// The largest start document in bytes.
pub const MAX_DOCUMENT_BYTES: usize = 4 << 20;

/// How many processes and threads a container may have unless its document says otherwise.
pub const DEFAULT_PROCESS_LIMIT: u32 = 4096;
/// How much of each output stream is kept unless the document says otherwise.
pub const DEFAULT_OUTPUT_LIMIT: ByteSize = ByteSize::mib(256);
/// The least that an output limit may be.
pub const MIN_OUTPUT_LIMIT: ByteSize = ByteSize::mib(1);

/// How a container is run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Engine {
    /// As a plain process in a session of its own.
    #[default]
    Process,
    /// In a container of Podman, by its command line.
    Podman,
    /// In a container of Docker, by its command line.
    Docker,
}

/// What network a container of an engine has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Network {
    /// None.
    #[default]
    None,
    /// That of its machine.
    Host,
}

/// A file or directory of the machine that a container of an engine sees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// Absolute path on the machine.
    pub source: String,
    /// Absolute path in the container.
    pub target: String,
    /// Whether the container may change it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub writable: bool,
}

/// What a container is to run; JSON on the standard input of the start command.
///
/// A runner refuses what it does not know. So that an older one takes every document that asks for
/// nothing new, what has its default is left out, but for numbers whose default could change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartDocument {
    /// [`START_DOCUMENT_VERSION`].
    pub version: u32,
    /// How it is run.
    #[serde(default, skip_serializing_if = "is_default")]
    pub engine: Engine,
    /// Program and arguments; at least the program, looked up in `PATH`.
    pub command: Vec<String>,
    /// Environment variables beside `PATH`, `HOME`, `LONGSHORE_CONTAINER_UUID` and
    /// `LONGSHORE_ATTEMPT`; these win over the former two.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Absolute path of the working directory; none means a fresh one that is removed with the
    /// result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Absolute path of the file that becomes standard input; none means an empty one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin: Option<String>,
    /// The image of its container; with an engine that has images, and only then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// What its container sees of the machine; as the image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mount>,
    /// The network of its container; a process without an engine has that of its machine.
    #[serde(default, skip_serializing_if = "is_default")]
    pub network: Network,
    /// It is ended after this many milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_limit_ms: Option<u64>,
    /// How much RAM it may use, swap included; none means no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ram: Option<ByteSize>,
    /// How many processors' time it may use; none means no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vcpus: Option<u32>,
    /// How many processes and threads it may have at once.
    #[serde(default = "default_process_limit")]
    pub process_limit: u32,
    /// How much of each output stream is kept: its beginning and its end, half of it each.
    #[serde(default = "default_output_limit")]
    pub output_limit: ByteSize,
    /// How many milliseconds pass between asking it to end (TERM) and ending it (KILL).
    #[serde(default = "default_kill_grace_ms")]
    pub kill_grace_ms: u64,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn default_process_limit() -> u32 {
    DEFAULT_PROCESS_LIMIT
}

fn default_output_limit() -> ByteSize {
    DEFAULT_OUTPUT_LIMIT
}

fn default_kill_grace_ms() -> u64 {
    10_000
}

/// A start document that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DocumentError {
    /// It is longer than [`MAX_DOCUMENT_BYTES`].
    #[error("the start document has {0} bytes, more than {MAX_DOCUMENT_BYTES}")]
    TooLong(usize),
    /// It is not the JSON that is expected.
    #[error("the start document is not valid")]
    Json(#[from] serde_json::Error),
    /// It was written for another version of the runner.
    #[error("the start document has version {0}, this runner reads {START_DOCUMENT_VERSION}")]
    Version(u32),
    /// It names no program.
    #[error("the start document names no command")]
    NoCommand,
    /// A text in it has a NUL byte, which no argument or variable can hold.
    #[error("{0} has a NUL byte")]
    Nul(&'static str),
    /// An engine needs an image, and a process has none.
    #[error("the start document has an image without an engine for it, or an engine without one")]
    Image,
    /// The name of its image cannot be one.
    #[error("the image of the start document is not the name of an image")]
    ImageName,
    /// A path of a mount has a colon, which the engines take for an end.
    #[error("a path of a mount in the start document has a colon")]
    Colon,
    /// A limit in it leaves nothing to run with.
    #[error("the {0} of the start document is too small")]
    TooSmall(&'static str),
    /// A path in it is not absolute.
    #[error("the {0} of the start document is not an absolute path")]
    NotAbsolute(&'static str),
}

impl StartDocument {
    /// A document that runs `command` with every other field at its default.
    pub fn new(command: Vec<String>) -> Self {
        Self {
            version: START_DOCUMENT_VERSION,
            engine: Engine::Process,
            command,
            env: BTreeMap::new(),
            cwd: None,
            stdin: None,
            image: None,
            mounts: Vec::new(),
            network: Network::None,
            time_limit_ms: None,
            ram: None,
            vcpus: None,
            process_limit: DEFAULT_PROCESS_LIMIT,
            output_limit: DEFAULT_OUTPUT_LIMIT,
            kill_grace_ms: default_kill_grace_ms(),
        }
    }

    /// Reads and checks a document.
    pub fn from_json(bytes: &[u8]) -> Result<Self, DocumentError> {
        if bytes.len() > MAX_DOCUMENT_BYTES {
            return Err(DocumentError::TooLong(bytes.len()));
        }
        let document: Self = serde_json::from_slice(bytes)?;
        document.check()?;
        Ok(document)
    }

    /// Checks and writes a document.
    pub fn to_json(&self) -> Result<Vec<u8>, DocumentError> {
        self.check()?;
        let bytes = serde_json::to_vec(self)?;
        if bytes.len() > MAX_DOCUMENT_BYTES {
            return Err(DocumentError::TooLong(bytes.len()));
        }
        Ok(bytes)
    }

    fn check_container(&self) -> Result<(), DocumentError> {
        if (self.engine == Engine::Process) != self.image.is_none() {
            return Err(DocumentError::Image);
        }
        if self
            .image
            .as_ref()
            .is_some_and(|image| !is_image_name(image))
        {
            return Err(DocumentError::ImageName);
        }
        for path in self.mounts.iter().flat_map(|m| [&m.source, &m.target]) {
            if path.contains('\0') {
                return Err(DocumentError::Nul("a path of a mount"));
            }
            if path.contains(':') {
                return Err(DocumentError::Colon);
            }
            if !path.starts_with('/') {
                return Err(DocumentError::NotAbsolute("path of a mount"));
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<(), DocumentError> {
        let has_nul = |text: &String| text.contains('\0');
        if self.version != START_DOCUMENT_VERSION {
            return Err(DocumentError::Version(self.version));
        }
        if self.command.first().is_none_or(String::is_empty) {
            return Err(DocumentError::NoCommand);
        }
        if self.command.iter().any(has_nul) {
            return Err(DocumentError::Nul("an argument of the command"));
        }
        if self
            .env
            .iter()
            .any(|(k, v)| has_nul(k) || has_nul(v) || k.is_empty() || k.contains('='))
        {
            return Err(DocumentError::Nul(
                "a variable of the environment has no valid name or",
            ));
        }
        self.check_container()?;
        if self.cwd.iter().chain(&self.stdin).any(has_nul) {
            return Err(DocumentError::Nul("a path"));
        }
        if self.output_limit < MIN_OUTPUT_LIMIT {
            return Err(DocumentError::TooSmall("output_limit"));
        }
        if self.process_limit == 0 {
            return Err(DocumentError::TooSmall("process_limit"));
        }
        let relative = |path: &Option<String>| path.as_ref().is_some_and(|p| !p.starts_with('/'));
        if relative(&self.cwd) {
            return Err(DocumentError::NotAbsolute("cwd"));
        }
        if relative(&self.stdin) {
            return Err(DocumentError::NotAbsolute("stdin"));
        }
        Ok(())
    }
}

/// Whether a text can be the name of an image: an engine must not take it for an option.
///
/// ```
/// use longshore_runner_api::is_image_name;
/// assert!(is_image_name("docker.io/library/busybox:1.36"));
/// assert!(!is_image_name("--privileged") && !is_image_name("a b") && !is_image_name(""));
/// ```
pub fn is_image_name(text: &str) -> bool {
    let first = text.as_bytes().first();
    let plain = |c: char| c.is_ascii_alphanumeric() || "./:@_-".contains(c);
    first.is_some_and(u8::is_ascii_alphanumeric) && text.len() <= 512 && text.chars().all(plain)
}

/// The line that a successful start prints, one JSON object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartReply {
    /// The container.
    #[serde(rename = "UUID")]
    pub uuid: ContainerUuid,
    /// The supervisor's process id.
    #[serde(rename = "PID")]
    pub pid: u32,
    /// The attempt that was started.
    #[serde(rename = "Attempt")]
    pub attempt: Attempt,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_survives_its_json() {
        let mut document = StartDocument::new(vec!["sh".into(), "-c".into(), "echo 'ü\n\"".into()]);
        document.env.insert("A".into(), "b=c".into());
        document.time_limit_ms = Some(5);
        document.ram = Some(ByteSize::mib(5));
        document.vcpus = Some(5);
        let json = document.to_json().unwrap();
        assert_eq!(StartDocument::from_json(&json).unwrap(), document);
    }

    #[test]
    fn an_older_runner_is_told_nothing_that_is_not_asked_for() {
        let mut document = StartDocument::new(vec!["a".into()]);
        let told =
            |document: &StartDocument| String::from_utf8(document.to_json().unwrap()).unwrap();
        let numbers = r#""process_limit":1,"output_limit":2097152,"kill_grace_ms":3"#;
        document.process_limit = 1;
        document.output_limit = ByteSize::mib(2);
        document.kill_grace_ms = 3;
        assert_eq!(
            told(&document),
            format!(r#"{{"version":1,"command":["a"],{numbers}}}"#)
        );
        document.engine = Engine::Docker;
        document.image = Some("b".into());
        document.mounts = vec![Mount {
            source: "/c".into(),
            target: "/d".into(),
            writable: false,
        }];
        let expected = format!(
            r#"{{"version":1,"engine":"docker","command":["a"],"image":"b","mounts":[{{"source":"/c","target":"/d"}}],{numbers}}}"#
        );
        assert_eq!(told(&document), expected);
    }

    #[test]
    fn unusable_documents_are_refused() {
        for bad in [
            r#"{}"#,
            r#"{"version":1,"command":[]}"#,
            r#"{"version":1,"command":[""]}"#,
            r#"{"version":2,"command":["true"]}"#,
            r#"{"version":1,"command":["true"],"unknown":1}"#,
            r#"{"version":1,"command":["a\u0000b"]}"#,
            r#"{"version":1,"command":["a"],"env":{"A=B":"c"}}"#,
            r#"{"version":1,"command":["a"],"cwd":"/\u0000"}"#,
            r#"{"version":1,"command":["a"],"cwd":"b"}"#,
            r#"{"version":1,"command":["a"],"stdin":""}"#,
            r#"{"version":1,"command":["a"],"output_limit":1000}"#,
            r#"{"version":1,"command":["a"],"process_limit":0}"#,
            r#"{"version":1,"command":["a"],"engine":"podman"}"#,
            r#"{"version":1,"command":["a"],"image":"b"}"#,
            r#"{"version":1,"command":["a"],"engine":"docker","image":"-v"}"#,
            r#"{"version":1,"command":["a"],"engine":"docker","image":"b","mounts":[{"source":"/a:","target":"/b"}]}"#,
            r#"{"version":1,"command":["a"],"engine":"docker","image":"b","mounts":[{"source":"a","target":"/b"}]}"#,
        ] {
            assert!(StartDocument::from_json(bad.as_bytes()).is_err(), "{bad}");
        }
        let long = vec![b' '; MAX_DOCUMENT_BYTES + 1];
        assert!(matches!(
            StartDocument::from_json(&long),
            Err(DocumentError::TooLong(_))
        ));
    }
}
