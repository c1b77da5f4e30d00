//! A YAML document as a tree whose nodes know where they stand in the file.
//!
//! JSON is read as the subset of YAML that it is. Scalars keep their text as it was written, so
//! that `command: [echo, 1.10]` is not turned into a number on the way.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use granit_parser::{Event, Parser, ScalarStyle};

use super::problem::{Position, Problems};
use crate::text::excerpt;

/// The deepest nesting; a job file needs five levels.
const MAX_DEPTH: usize = 16;
/// The most nodes: enough for the largest number of jobs with twenty each.
const MAX_NODES: usize = 2_000_000;
/// The same where what an alias stands for counts each time: whoever reads the values copies it.
const MAX_MEANT: usize = 5_000_000;

/// A value and where it stands.
#[derive(Debug)]
pub(crate) struct Node<'a> {
    pub(crate) at: Position,
    kind: Kind<'a>,
    /// How many values it is, with all in it; aliases are what they stand for.
    meant: usize,
}

#[derive(Debug)]
enum Kind<'a> {
    Scalar(Scalar<'a>),
    List(Vec<Node<'a>>),
    Map(Vec<Entry<'a>>),
    /// Something with an anchor; its aliases share it, so that they cost nothing.
    Shared(Rc<Node<'a>>),
}

/// What a node holds, anchors and aliases looked through.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value<'n, 'a> {
    Scalar(&'n Scalar<'a>),
    List(&'n [Node<'a>]),
    Map(&'n [Entry<'a>]),
}

/// A single value as it was written.
#[derive(Debug)]
pub(crate) struct Scalar<'a> {
    pub(crate) text: Cow<'a, str>,
    /// Whether it was written without quotes, so that it may mean a number, `true` or nothing.
    pub(crate) plain: bool,
}

/// A key and its value.
#[derive(Debug)]
pub(crate) struct Entry<'a> {
    pub(crate) key: Cow<'a, str>,
    pub(crate) at: Position,
    pub(crate) value: Node<'a>,
}

impl Scalar<'_> {
    /// Whether it is written as nothing: empty, `~` or `null`.
    pub(crate) fn is_null(&self) -> bool {
        self.plain && matches!(&*self.text, "" | "~" | "null" | "Null" | "NULL")
    }
}

impl<'a> Node<'a> {
    pub(crate) fn value(&self) -> Value<'_, 'a> {
        match &self.kind {
            Kind::Scalar(scalar) => Value::Scalar(scalar),
            Kind::List(items) => Value::List(items),
            Kind::Map(entries) => Value::Map(entries),
            Kind::Shared(node) => node.value(),
        }
    }

    /// Whether it is written as nothing.
    pub(crate) fn is_null(&self) -> bool {
        matches!(self.value(), Value::Scalar(scalar) if scalar.is_null())
    }

    /// What it is, for "expected …, found …".
    pub(crate) fn describe(&self) -> String {
        match self.value() {
            Value::List(_) => "a list".into(),
            Value::Map(_) => "a mapping".into(),
            Value::Scalar(scalar) if scalar.is_null() => "nothing".into(),
            Value::Scalar(scalar) => {
                let kind = match &*scalar.text {
                    "true" | "false" if scalar.plain => "",
                    text if scalar.plain && text.parse::<f64>().is_ok() => "the number ",
                    _ => "the text ",
                };
                let quoted = format!("{:?}", excerpt(&scalar.text));
                match kind {
                    "the text " => format!("{kind}{quoted}"),
                    _ => format!("{kind}{}", excerpt(&scalar.text)),
                }
            }
        }
    }
}

/// Reads one document. None if the text cannot be understood as one; the reason is then in
/// `problems`.
pub(crate) fn parse<'a>(text: &'a str, problems: &mut Problems) -> Option<Node<'a>> {
    let mut builder = Builder::default();
    let mut options = granit_parser::options! {
        disallow_directives: true,
        flow_nesting_limit: MAX_DEPTH,
        block_nesting_limit: MAX_DEPTH,
    };
    options.set_emit_comments(false);
    for event in Parser::new_from_str_with_options(text, options) {
        let result = match event {
            Ok((event, span)) => {
                builder.handle(event, position(span.start.line(), span.start.col()))
            }
            Err(error) => {
                let mark = error.marker();
                let at = position(mark.line(), mark.col());
                Err((at, format!("is not valid YAML: {}", error.kind())))
            }
        };
        if let Err((at, message)) = result {
            problems.add(at, message);
            return None;
        }
    }
    for (at, message) in builder.complaints {
        problems.add(at, message);
    }
    builder.root
}

fn position(line: usize, column_from_zero: usize) -> Position {
    let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Position {
        line: small(line),
        column: small(column_from_zero.saturating_add(1)),
    }
}

type Failure = (Position, String);

/// A collection whose end has not been seen.
#[derive(Debug)]
struct Open<'a> {
    at: Position,
    anchor: usize,
    items: Collected<'a>,
}

#[derive(Debug)]
enum Collected<'a> {
    List(Vec<Node<'a>>),
    Map {
        entries: Vec<Entry<'a>>,
        key: Option<(Cow<'a, str>, Position)>,
    },
}

#[derive(Debug, Default)]
struct Builder<'a> {
    open: Vec<Open<'a>>,
    anchors: BTreeMap<usize, Rc<Node<'a>>>,
    root: Option<Node<'a>>,
    documents: usize,
    nodes: usize,
    complaints: Vec<Failure>,
}

impl<'a> Builder<'a> {
    fn handle(&mut self, event: Event<'a>, at: Position) -> Result<(), Failure> {
        if let Some(tag) = event.tag() {
            let tag = excerpt(&tag.original());
            return Err((
                at,
                format!("tags like {tag} have no meaning here; remove it"),
            ));
        }
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    let advice = "a second document starts here; put it into a file of its own";
                    return Err((at, advice.into()));
                }
                Ok(())
            }
            Event::Scalar(text, style, anchor, _) => {
                let plain = style == ScalarStyle::Plain;
                let kind = Kind::Scalar(Scalar { text, plain });
                let meant = 1;
                self.place(Node { at, kind, meant }, anchor)
            }
            Event::Alias(id) => {
                let inside = "this alias stands inside what it stands for";
                let shared = self.anchors.get(&id).ok_or((at, inside.to_owned()))?;
                let (meant, kind) = (shared.meant, Kind::Shared(Rc::clone(shared)));
                self.place(Node { at, kind, meant }, 0)
            }
            Event::SequenceStart(_, anchor, _) => {
                self.begin(at, anchor, Collected::List(Vec::new()))
            }
            Event::MappingStart(_, anchor, _) => {
                let (entries, key) = (Vec::new(), None);
                self.begin(at, anchor, Collected::Map { entries, key })
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            _ => Ok(()),
        }
    }

    fn begin(&mut self, at: Position, anchor: usize, items: Collected<'a>) -> Result<(), Failure> {
        if self.open.len() == MAX_DEPTH {
            return Err((at, format!("is nested more than {MAX_DEPTH} levels deep")));
        }
        self.open.push(Open { at, anchor, items });
        Ok(())
    }

    fn end(&mut self) -> Result<(), Failure> {
        let Some(Open { at, anchor, items }) = self.open.pop() else {
            return Ok(());
        };
        let kind = match items {
            Collected::List(items) => Kind::List(items),
            Collected::Map { entries, .. } => Kind::Map(self.without_doubles(entries)),
        };
        let inside: usize = match &kind {
            Kind::List(items) => items.iter().map(|item| item.meant).sum(),
            Kind::Map(entries) => entries.iter().map(|entry| 1 + entry.value.meant).sum(),
            Kind::Scalar(_) | Kind::Shared(_) => 0,
        };
        let meant = 1 + inside;
        self.place(Node { at, kind, meant }, anchor)
    }

    /// The first entry of each key; complains about the others.
    fn without_doubles(&mut self, mut entries: Vec<Entry<'a>>) -> Vec<Entry<'a>> {
        let mut seen = BTreeSet::new();
        let complaints = &mut self.complaints;
        entries.retain(|entry| {
            let new = seen.insert(entry.key.clone());
            if !new && complaints.len() < Problems::MAX {
                let key = excerpt(&entry.key);
                complaints.push((entry.at, format!("the key {key:?} is here twice; keep one")));
            }
            new
        });
        entries
    }

    /// Puts a finished node where it belongs.
    fn place(&mut self, mut node: Node<'a>, anchor: usize) -> Result<(), Failure> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err((node.at, format!("has more than {MAX_NODES} values")));
        }
        if node.meant > MAX_MEANT {
            let message = format!(
                "with what its aliases stand for this is more than {MAX_MEANT} values; put data \
                 into files"
            );
            return Err((node.at, message));
        }
        if anchor != 0 {
            let at = node.at;
            let shared = Rc::new(node);
            self.anchors.insert(anchor, Rc::clone(&shared));
            node = Node {
                at,
                meant: shared.meant,
                kind: Kind::Shared(shared),
            };
        }
        match self.open.last_mut().map(|open| &mut open.items) {
            None => self.root = Some(node),
            Some(Collected::List(items)) => items.push(node),
            Some(Collected::Map { entries, key }) => match key.take() {
                Some((key, at)) => entries.push(Entry {
                    key,
                    at,
                    value: node,
                }),
                None => *key = Some(as_key(&node)?),
            },
        }
        Ok(())
    }
}

fn as_key<'a>(node: &Node<'a>) -> Result<(Cow<'a, str>, Position), Failure> {
    match node.value() {
        Value::Scalar(scalar) => Ok((scalar.text.clone(), node.at)),
        Value::List(_) | Value::Map(_) => {
            let found = node.describe();
            Err((node.at, format!("a key must be a text, found {found}")))
        }
    }
}
