//! From what a job file says to the jobs that it means.

use std::collections::BTreeMap;
use std::path::Path;

use longshore_runner_api::{Engine, Mount, StartDocument, is_image_name};
use longshore_types::{ByteSize, Preemptible, Resource, ResourceRequest, Resources};
use sha2::{Digest, Sha256};

use super::schema::{Command, Document, ForEach, Settings};
use super::{Job, Limits, MAX_JOBS, Machine, glob};
use crate::text::excerpt;
use crate::yaml::problem::{Position, Problems};
use crate::yaml::value::{Field, Text};

/// The longest single argument or `NAME=value`, in bytes: Linux' `MAX_ARG_STRLEN` less its end.
const MAX_ARGUMENT: usize = 128 * 1024 - 1;
/// All arguments and variables of one job together, in bytes; Linux takes 2 MiB, of which the
/// runner's own variables need some.
const MAX_ARGUMENTS: usize = 2 * 1024 * 1024 - 64 * 1024;
/// The texts of all jobs of a file together, in bytes.
const MAX_TEXT: usize = 256 << 20;
/// What each of these texts takes beside its bytes.
const TEXT_COST: usize = 32;
/// How many texts may be looked at, those of `defaults` for each job, and those of a job for each
/// item: an end for files of which nothing comes.
const MAX_LOOKS: usize = 50_000_000;
/// The longest name in bytes.
const MAX_NAME: usize = 1024;
/// The longest path in bytes, which is Linux' `PATH_MAX`.
const MAX_PATH: usize = 4096;

const DEFAULT_VCPUS: u32 = 1;
const DEFAULT_RAM: ByteSize = ByteSize::mib(256);
const DEFAULT_PRIORITY: i64 = 500;
const DEFAULT_RETRIES: u32 = 3;

/// One item of `for_each`.
struct Item<'n> {
    /// For the name.
    short: &'n str,
    /// For everything else.
    full: String,
    index: usize,
    /// Whether it is the name of a file, which the author of the job file did not write.
    is_file: bool,
}

/// Makes jobs of settings.
pub(super) struct Expander<'a> {
    directory: &'a Path,
    limits: &'a Limits,
    problems: &'a mut Problems,
    names: BTreeMap<String, Position>,
    jobs: Vec<Job>,
    text_bytes: usize,
    looks: usize,
    full: bool,
    /// What the file system added to what the file says.
    found: Sha256,
}

impl<'a> Expander<'a> {
    /// `directory` is where relative paths start; it is absolute.
    pub(super) fn new(directory: &'a Path, limits: &'a Limits, problems: &'a mut Problems) -> Self {
        Self {
            directory,
            limits,
            problems,
            names: BTreeMap::new(),
            jobs: Vec::new(),
            text_bytes: 0,
            looks: 0,
            full: false,
            found: Sha256::new(),
        }
    }

    /// The jobs in the order of the file, and a digest of everything beside the file's own bytes
    /// that they depend on.
    pub(super) fn run(mut self, document: Document<'_>) -> (Vec<Job>, [u8; 32]) {
        let defaults = document.defaults;
        for (at, settings) in document.jobs {
            if self.full {
                break;
            }
            let settings = settings.or(&defaults);
            self.look(at, &settings);
            self.check_presence(at, &settings);
            self.check_size(at, &settings);
            match settings.for_each.clone() {
                Field::Bad => {}
                Field::Absent => self.add_job(at, &settings, None),
                Field::Good { value, at: list } => self.add_each(at, list, &settings, &value),
            }
        }
        (self.jobs, self.found.finalize().into())
    }

    /// Counts what is looked at, and gives the file up if it is too much.
    fn look(&mut self, at: Position, settings: &Settings<'_>) {
        self.looks += 1 + settings.texts();
        if self.looks > MAX_LOOKS {
            let message = "the jobs have too many arguments and variables; put data into files";
            self.problems.add(at, message);
            self.full = true;
        }
    }

    fn check_presence(&mut self, at: Position, settings: &Settings<'_>) {
        if settings.name == Field::Absent {
            let message = "this job has no \"name\"; give it one that no other job has";
            self.problems.add(at, message);
        }
        if settings.command == Field::Absent {
            let message = "this job has no \"command\"; say what it runs";
            self.problems.add(at, message);
        }
    }

    /// Complains about a job that is too large for every machine there is.
    fn check_size(&mut self, at: Position, settings: &Settings<'_>) {
        let needs = needs(settings);
        let Some(nearest) = nearest(&needs, &self.limits.machines) else {
            return;
        };
        let lacking = lacking(&needs, &nearest.room);
        let Some(first) = lacking.first() else { return };
        let at = match first {
            Resource::Vcpus => settings.vcpus.at(),
            Resource::Ram => settings.ram.at(),
            Resource::Scratch | Resource::Gpus => settings.scratch.at(),
        }
        .unwrap_or(at);
        let each = |describe: &dyn Fn(Resource) -> String| {
            let parts: Vec<String> = lacking.iter().map(|lacking| describe(*lacking)).collect();
            parts.join(" and ")
        };
        let need = each(&|lacking| needs.describe(lacking));
        let have = each(&|lacking| amount(&nearest.room, lacking));
        let name = &nearest.name;
        let message = format!("needs {need}, {name} has {have}; ask for less");
        self.problems.add(at, message);
    }

    fn add_each(
        &mut self,
        at: Position,
        list: Position,
        settings: &Settings<'_>,
        each: &ForEach<'_>,
    ) {
        let matched;
        let (texts, is_file): (Vec<&str>, bool) = match each {
            ForEach::Items(items) => (items.iter().map(|item| item.text).collect(), false),
            ForEach::Glob(pattern) => {
                matched = self.matches(*pattern);
                (matched.iter().map(String::as_str).collect(), true)
            }
        };
        if let Some(name) = settings.name.good()
            && texts.len() > 1
            && !name.text.contains("{item}")
            && !name.text.contains("{index}")
        {
            let message = "this name is the same for every item of \"for_each\"; \
                           put {item} or {index} into it";
            return self.problems.add(name.at, message);
        }
        for (i, short) in texts.into_iter().enumerate() {
            if self.full {
                return;
            }
            if short.len() > MAX_ARGUMENT {
                self.problems.add(list, "an item is longer than 128 KiB");
                continue;
            }
            let full = match self.directory.join(short).to_str() {
                Some(path) if is_file => path.to_owned(),
                _ => short.to_owned(),
            };
            let index = i + 1;
            let item = Item {
                short,
                full,
                index,
                is_file,
            };
            self.add_job(at, settings, Some(&item));
        }
    }

    fn matches(&mut self, pattern: Text<'_>) -> Vec<String> {
        let found = match glob::matches(self.directory, pattern.text) {
            Ok(found) => found,
            Err(message) => {
                self.problems.add(pattern.at, message);
                return Vec::new();
            }
        };
        if found.is_empty() {
            let (shown, directory) = (excerpt(pattern.text), self.directory.display());
            let message = format!("{shown:?} matches no file (relative to {directory})");
            self.problems.add(pattern.at, message);
        }
        for path in std::iter::once(pattern.text).chain(found.iter().map(String::as_str)) {
            self.found.update((path.len() as u64).to_le_bytes());
            self.found.update(path);
        }
        self.found.update(u64::MAX.to_le_bytes());
        found
    }

    fn add_job(&mut self, at: Position, settings: &Settings<'_>, item: Option<&Item<'_>>) {
        if self.jobs.len() == MAX_JOBS {
            let message = format!("makes more than {MAX_JOBS} jobs; split the file");
            self.problems.add(at, message);
            self.full = true;
            return;
        }
        self.look(at, settings);
        if self.full {
            return;
        }
        let name = settings.name.good().and_then(|name| self.name(*name, item));
        let document = self.document(settings, item);
        let (Some(name), Some(document)) = (name, document) else {
            return;
        };
        self.text_bytes += name.len() + text_bytes(&document) + TEXT_COST * settings.texts();
        if self.text_bytes > MAX_TEXT {
            let limit = ByteSize(MAX_TEXT as u64);
            let message = format!("the jobs together have more than {limit} of text");
            self.problems
                .add(at, format!("{message}; put data into files"));
            self.full = true;
            return;
        }
        let needs = needs(settings);
        self.jobs.push(Job {
            name,
            document,
            request: ResourceRequest {
                vcpus: needs.vcpus,
                ram: needs.ram,
                scratch: needs.scratch,
                preemptible: *settings.preemptible.good().unwrap_or(&Preemptible::Never),
                ..ResourceRequest::default()
            },
            priority: *settings.priority.good().unwrap_or(&DEFAULT_PRIORITY),
            retries: *settings.retries.good().unwrap_or(&DEFAULT_RETRIES),
            keep_output: *settings.keep_output.good().unwrap_or(&false),
        });
    }

    fn name(&mut self, template: Text<'_>, item: Option<&Item<'_>>) -> Option<String> {
        let name = fill(template.text, item, |item| item.short);
        let shown = excerpt(&name);
        if name.trim().is_empty() || name.len() > MAX_NAME {
            let message = format!("a name has 1 to {MAX_NAME} bytes, {shown:?} does not");
            self.problems.add(template.at, message);
            return None;
        }
        if let Some(first) = self.names.get(&name) {
            let line = first.line;
            let message =
                format!("the name {shown:?} is taken by the job at line {line}; choose another");
            self.problems.add(template.at, message);
            return None;
        }
        self.names.insert(name.clone(), template.at);
        Some(name)
    }

    fn document(
        &mut self,
        settings: &Settings<'_>,
        item: Option<&Item<'_>>,
    ) -> Option<StartDocument> {
        let command = match settings.command.good()? {
            Command::Shell(script) => self.shell(*script, item)?,
            Command::Words(words) => self.words(settings.command.at()?, words, item)?,
        };
        let mut document = StartDocument::new(command);
        for (key, value) in &settings.env {
            let value = fill(value.text, item, |item| &item.full);
            self.check_length(key.at, key.text.len() + 1 + value.len(), "a variable")?;
            document.env.insert(key.text.to_owned(), value);
        }
        let total = text_bytes(&document);
        if total > MAX_ARGUMENTS {
            let at = settings.command.at()?;
            let message = format!(
                "arguments and variables have {total} bytes, {MAX_ARGUMENTS} are possible; \
                 put them into a file"
            );
            self.problems.add(at, message);
            return None;
        }
        self.container(&mut document, settings, item)?;
        document.cwd = match document.engine {
            Engine::Process => self.path(&settings.cwd, item)?,
            _ => self.path_inside(&settings.cwd, item)?,
        };
        document.stdin = self.stdin(&settings.stdin, item)?;
        document.time_limit_ms = settings.time_limit_ms.good().copied();
        if let Some(limit) = settings.output_limit.good() {
            document.output_limit = *limit;
        }
        if let Some(limit) = settings.process_limit.good() {
            document.process_limit = *limit;
        }
        Some(document)
    }

    fn shell(&mut self, script: Text<'_>, item: Option<&Item<'_>>) -> Option<Vec<String>> {
        if script.text.trim().is_empty() {
            self.problems
                .add(script.at, "the command is empty; say what the job runs");
            return None;
        }
        if let Some(item) = item
            && item.is_file
            && script.text.contains("{item}")
            && item.full.contains(|c| !is_plain_in_shell(c))
        {
            let shown = excerpt(item.short);
            let message = format!(
                "the file name {shown:?} has characters that mean something to the shell; \
                 pass it as a variable (env: {{FILE: \"{{item}}\"}}) and write \"$FILE\""
            );
            self.problems.add(script.at, message);
            return None;
        }
        let filled = fill(script.text, item, |item| &item.full);
        self.check_length(script.at, filled.len(), "the command")?;
        Some(vec!["sh".into(), "-c".into(), filled])
    }

    fn words(
        &mut self,
        at: Position,
        words: &[Text<'_>],
        item: Option<&Item<'_>>,
    ) -> Option<Vec<String>> {
        let mut filled = Vec::with_capacity(words.len());
        for word in words {
            let text = fill(word.text, item, |item| &item.full);
            self.check_length(word.at, text.len(), "an argument")?;
            filled.push(text);
        }
        if filled
            .first()
            .is_none_or(|program| program.trim().is_empty())
        {
            self.problems
                .add(at, "the command is empty; say what the job runs");
            return None;
        }
        Some(filled)
    }

    fn check_length(&mut self, at: Position, bytes: usize, what: &str) -> Option<()> {
        if bytes <= MAX_ARGUMENT {
            return Some(());
        }
        let message = format!(
            "{what} has {bytes} bytes, the kernel takes {MAX_ARGUMENT} in one piece; \
             put it into a file"
        );
        self.problems.add(at, message);
        None
    }

    /// What a container engine needs to know, if there is one.
    fn container(
        &mut self,
        document: &mut StartDocument,
        settings: &Settings<'_>,
        item: Option<&Item<'_>>,
    ) -> Option<()> {
        if settings.engine == Field::Bad {
            return None;
        }
        document.engine = settings.engine.good().copied().unwrap_or_default();
        let at = [
            settings.image.at(),
            settings.mounts.at(),
            settings.network.at(),
        ];
        if document.engine == Engine::Process {
            let Some(at) = at.into_iter().flatten().next() else {
                return Some(());
            };
            let message = "only a container has this; say which engine runs it: podman or docker";
            self.problems.add(at, message);
            return None;
        }
        let Some(image) = settings.image.good() else {
            if settings.image == Field::Absent {
                let at = settings.engine.at()?;
                self.problems.add(at, "this engine needs an \"image\"");
            }
            return None;
        };
        let name = fill(image.text, item, |item| &item.full);
        if !is_image_name(&name) {
            let message = format!("{:?} cannot be the name of an image", excerpt(&name));
            self.problems.add(image.at, message);
            return None;
        }
        document.image = Some(name);
        for mount in settings.mounts.good().into_iter().flatten() {
            document.mounts.push(self.mount(*mount, item)?);
        }
        document.network = settings.network.good().copied().unwrap_or_default();
        Some(())
    }

    /// `SOURCE:TARGET`, with `:rw` if the container may change it.
    fn mount(&mut self, template: Text<'_>, item: Option<&Item<'_>>) -> Option<Mount> {
        let text = fill(template.text, item, |item| &item.full);
        let parts: Vec<&str> = text.split(':').collect();
        let (source, target, writable) = match parts.as_slice() {
            [source, target] | [source, target, "ro"] => (source, target, false),
            [source, target, "rw"] => (source, target, true),
            _ => (&"", &"", false),
        };
        let source = self.directory.join(source);
        let is_good = !parts.first().is_none_or(|source| source.is_empty())
            && target.starts_with('/')
            && text.len() < MAX_PATH;
        let (Some(source), true) = (source.to_str(), is_good) else {
            let message = format!(
                "{:?} is no mount; write SOURCE:/TARGET, and :rw behind it if the container may \
                 change it",
                excerpt(&text)
            );
            self.problems.add(template.at, message);
            return None;
        };
        Some(Mount {
            source: source.to_owned(),
            target: (*target).to_owned(),
            writable,
        })
    }

    /// An absolute path in a container, if there is a good one; else as [`Self::path`].
    fn path_inside(
        &mut self,
        field: &Field<Text<'_>>,
        item: Option<&Item<'_>>,
    ) -> Option<Option<String>> {
        let Some(template) = field.good() else {
            return Some(None);
        };
        let text = fill(template.text, item, |item| &item.full);
        if text.starts_with('/') && text.len() < MAX_PATH {
            return Some(Some(text));
        }
        let message = "this is a path in the container; begin it with a slash";
        self.problems.add(template.at, message);
        None
    }

    /// An absolute path, if there is a good one; the outer none means that there is a bad one.
    /// The file that becomes standard input. What other programs mean by a hyphen, a job has not.
    fn stdin(
        &mut self,
        field: &Field<Text<'_>>,
        item: Option<&Item<'_>>,
    ) -> Option<Option<String>> {
        if let Some(Text { text: "-", at }) = field.good() {
            let message = "a job reads no terminal and no pipe of whoever submits it; name a file, \
                           ./- for one of that name";
            self.problems.add(*at, message);
            return None;
        }
        self.path(field, item)
    }

    fn path(&mut self, field: &Field<Text<'_>>, item: Option<&Item<'_>>) -> Option<Option<String>> {
        let Some(template) = field.good() else {
            return Some(None);
        };
        let text = fill(template.text, item, |item| &item.full);
        let path = self.directory.join(&text);
        match path.to_str() {
            Some(path) if !text.is_empty() && path.len() < MAX_PATH => Some(Some(path.to_owned())),
            _ => {
                let message = format!("{:?} cannot be a path", excerpt(&text));
                self.problems.add(template.at, message);
                None
            }
        }
    }
}

/// `template` with `{item}` and `{index}` filled in; as it is where there is no item.
fn fill<'i>(
    template: &str,
    item: Option<&'i Item<'_>>,
    which: impl Fn(&'i Item<'_>) -> &'i str,
) -> String {
    let Some(item) = item else {
        return template.to_owned();
    };
    let mut filled = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(brace) = rest.find('{') {
        filled.push_str(&rest[..brace]);
        rest = &rest[brace..];
        if let Some(tail) = rest.strip_prefix("{item}") {
            filled.push_str(which(item));
            rest = tail;
        } else if let Some(tail) = rest.strip_prefix("{index}") {
            filled.push_str(&item.index.to_string());
            rest = tail;
        } else {
            filled.push('{');
            rest = &rest[1..];
        }
    }
    filled.push_str(rest);
    filled
}

fn needs(settings: &Settings<'_>) -> Resources {
    Resources {
        vcpus: *settings.vcpus.good().unwrap_or(&DEFAULT_VCPUS),
        ram: *settings.ram.good().unwrap_or(&DEFAULT_RAM),
        scratch: *settings.scratch.good().unwrap_or(&ByteSize::ZERO),
        gpus: 0,
    }
}

/// The machine that lacks least of what is needed, of those the largest; none if there are none.
fn nearest<'a>(needs: &Resources, machines: &'a [Machine]) -> Option<&'a Machine> {
    machines.iter().min_by_key(|machine| {
        let room = &machine.room;
        let size = (room.vcpus, room.ram, room.scratch);
        (lacking(needs, room).len(), std::cmp::Reverse(size))
    })
}

/// What a machine has too little of.
fn lacking(needs: &Resources, room: &Resources) -> Vec<Resource> {
    let mut lacking = Vec::new();
    let mut left = *needs;
    while let Some(resource) = left.lacking_in(room) {
        lacking.push(resource);
        match resource {
            Resource::Vcpus => left.vcpus = 0,
            Resource::Ram => left.ram = ByteSize::ZERO,
            Resource::Scratch => left.scratch = ByteSize::ZERO,
            Resource::Gpus => left.gpus = 0,
        }
    }
    lacking
}

fn amount(resources: &Resources, resource: Resource) -> String {
    match resource {
        Resource::Vcpus => resources.vcpus.to_string(),
        Resource::Ram => resources.ram.to_string(),
        Resource::Scratch => resources.scratch.to_string(),
        Resource::Gpus => resources.gpus.to_string(),
    }
}

/// What the kernel copies when the command is started: each text, its end and its pointer.
fn text_bytes(document: &StartDocument) -> usize {
    let words = document.command.iter().map(String::len);
    let variables = document.env.iter().map(|(k, v)| k.len() + 1 + v.len());
    words.chain(variables).map(|bytes| bytes + 9).sum()
}

fn is_plain_in_shell(c: char) -> bool {
    c.is_alphanumeric() || "/._-+,:@%=".contains(c)
}
