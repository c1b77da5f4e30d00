//! Lists: which objects, in which order, and what is shown of them.

use std::cmp::Ordering;

use axum::http::StatusCode;
use longshore_http::{Parameters, errors, json};
use serde_json::{Value, json};

use super::Answer;
use crate::listing::{CONTAINERS, Listing, MAX_PART_BYTES, Part, Table, Window, size};

/// The most objects in one answer.
pub(super) const MAX_LIMIT: usize = 1000;
const DEFAULT_LIMIT: usize = 100;
const MAX_FILTERS: usize = 100;
/// The most values of one `in`.
const MAX_VALUES: usize = 10_000;
/// The longest pattern of a `like` in bytes.
const MAX_PATTERN: usize = 1024;
const OPERATORS: &[&str] = &[
    "=", "!=", "<", "<=", ">", ">=", "in", "not in", "like", "ilike",
];

/// What a client wants to have listed.
#[derive(Clone, Debug)]
pub(super) struct Question {
    filters: Vec<Filter>,
    /// Attributes, and whether each is in descending order.
    order: Vec<(String, bool)>,
    select: Option<Vec<String>>,
    limit: usize,
    offset: usize,
    count: bool,
}

#[derive(Clone, Debug)]
struct Filter {
    attribute: String,
    operator: String,
    operand: Value,
}

impl Question {
    /// `known` are the attributes that there are. The error is the answer.
    pub(super) fn read(parameters: Parameters, known: &[&str]) -> Result<Self, Answer> {
        let value = |name| parameters.value(name).map_err(|refused| *refused);
        let filters = match value("filters")? {
            None => Vec::new(),
            Some(Value::Array(filters)) if filters.len() <= MAX_FILTERS => filters
                .iter()
                .map(|filter| Filter::read(filter, known))
                .collect::<Result<_, _>>()?,
            Some(_) => return wrong("filters is no list of at most 100 filters"),
        };
        let number = |name, default| match parameters.text(name) {
            None => Ok(default),
            Some(text) => text
                .parse::<usize>()
                .or_else(|_| wrong(&format!("{name} is no whole number of 0 or more"))),
        };
        Ok(Self {
            filters,
            order: order(&parameters, known)?,
            select: select(&parameters)?,
            limit: number("limit", DEFAULT_LIMIT)?.min(MAX_LIMIT),
            offset: number("offset", 0)?,
            count: parameters.text("count").as_deref() != Some("none"),
        })
    }

    /// What the database has to be asked. The filters and orders that it does not know are left
    /// here.
    pub(super) fn put_to(&mut self, table: &'static Table) -> Listing {
        let mut listing = Listing::of(table);
        if self.wants_unfinished() && std::ptr::eq(table, &raw const CONTAINERS) {
            listing.only_unfinished();
        }
        self.filters
            .retain(|f| !listing.narrow(&f.attribute, &f.operator, &f.operand));
        // What has to be looked through comes in one order; and of an order the first part counts
        // most, so that it is known as a whole or not at all.
        let mut ordered = listing.clone();
        let known = |(name, descending): &(String, bool)| ordered.order_by(name, *descending);
        if self.filters.is_empty() && self.order.iter().all(known) {
            self.order.clear();
            return ordered;
        }
        listing
    }

    /// The part that is wanted, if nothing is left here that the database does not know.
    pub(super) fn window(&self) -> Option<Window> {
        let answered = self.filters.is_empty() && self.order.is_empty();
        answered.then_some(Window {
            offset: self.offset,
            limit: self.limit,
            count: self.count,
        })
    }

    /// Whether only what has not ended can be meant.
    fn wants_unfinished(&self) -> bool {
        let unfinished =
            |value: &Value| matches!(value.as_str(), Some("Queued" | "Locked" | "Running"));
        self.filters.iter().any(|filter| {
            filter.attribute == "state"
                && match (filter.operator.as_str(), &filter.operand) {
                    ("=", value) => unfinished(value),
                    ("in", Value::Array(values)) => values.iter().all(unfinished),
                    _ => false,
                }
        })
    }

    fn has(&self, object: &Value) -> bool {
        self.filters.iter().all(|filter| filter.has(object))
    }

    fn compare(&self, a: &Value, b: &Value) -> Ordering {
        let orders = self.order.iter().map(|(name, descending)| {
            let order = in_order(&a[name], &b[name]);
            if *descending { order.reverse() } else { order }
        });
        orders.fold(Ordering::Equal, Ordering::then)
    }

    /// How many objects the answer can hold, with those before it.
    fn wanted(&self) -> usize {
        self.offset.saturating_add(self.limit)
    }

    /// The attributes that are shown, unless it is all of them.
    pub(super) fn select(&self) -> Option<Vec<String>> {
        self.select.clone()
    }

    /// The answer of the part of the list that was asked for, as it is shown.
    pub(super) fn answer(&self, part: Part, kind: &str) -> Answer {
        let mut answer = json!({
            "kind": kind, "etag": "", "self_link": "",
            "offset": self.offset, "limit": self.limit, "items": part.rows,
        });
        if let Some(available) = part.available {
            answer["items_available"] = available.into();
        }
        json(&answer)
    }
}

/// What is found where the database does not know all that is asked: the objects are given one
/// after the other, the newest first.
#[derive(Debug)]
pub(super) struct Found {
    question: Question,
    /// What is held of objects: what is shown, and what orders them.
    held: Option<Vec<String>>,
    objects: Vec<Value>,
    /// How large these are.
    bytes: usize,
    available: usize,
}

impl Found {
    pub(super) fn new(question: Question) -> Self {
        let held = question.select.clone().map(|mut names| {
            names.extend(question.order.iter().map(|(name, _)| name.clone()));
            names
        });
        Self {
            question,
            held,
            objects: Vec::new(),
            bytes: 0,
            available: 0,
        }
    }

    /// Takes an object if it is meant. False if what follows cannot change the answer.
    pub(super) fn add(&mut self, object: Value) -> bool {
        if !self.question.has(&object) {
            return true;
        }
        self.available += 1;
        let Question { limit, offset, .. } = self.question;
        if !self.question.order.is_empty() {
            self.hold(object);
            // What was found is bounded by what is wanted, not by what is there.
            let most = self.question.wanted().max(MAX_LIMIT).saturating_mul(2);
            if self.objects.len() >= most || self.is_large() {
                self.sort();
            }
            return !self.is_large();
        }
        let is_wanted = |found: &Self| found.objects.len() < limit && !found.is_large();
        if self.available > offset && is_wanted(self) {
            self.hold(object);
        }
        self.question.count || is_wanted(self)
    }

    fn hold(&mut self, object: Value) {
        let object = only(object, self.held.as_deref());
        self.bytes += size(&object);
        self.objects.push(object);
    }

    fn is_large(&self) -> bool {
        self.bytes > MAX_PART_BYTES
    }

    /// Stable: of what is equal the newest stays first.
    fn sort(&mut self) {
        let question = &self.question;
        self.objects.sort_by(|a, b| question.compare(a, b));
        self.objects.truncate(question.wanted());
        self.bytes = self.objects.iter().map(size).sum();
    }

    /// The error is the answer, too: of what has to be put in order no part is known before all is.
    pub(super) fn answer(mut self, kind: &str) -> Result<Answer, Answer> {
        if !self.question.order.is_empty() {
            if self.is_large() {
                return wrong("what was found is too large: select less of it, or a smaller part");
            }
            self.sort();
            self.objects
                .drain(..self.question.offset.min(self.objects.len()));
        }
        let select = self.question.select.as_deref();
        let rows = self.objects.into_iter().map(|object| only(object, select));
        let part = Part {
            rows: rows.collect(),
            available: self.question.count.then_some(self.available),
        };
        Ok(self.question.answer(part, kind))
    }
}

/// What is shown of an object: everything, or the attributes that were selected, and its kind.
pub(super) fn only(object: Value, select: Option<&[String]>) -> Value {
    let (Some(select), Value::Object(map)) = (select, &object) else {
        return object;
    };
    let shown = |name: &String| name == "kind" || select.contains(name);
    let map = map.iter().filter(|(name, _)| shown(name));
    Value::Object(
        map.map(|(name, value)| (name.clone(), value.clone()))
            .collect(),
    )
}

/// The attributes that a client selects, if it does.
pub(super) fn select(parameters: &Parameters) -> Result<Option<Vec<String>>, Answer> {
    match parameters.value("select").map_err(|refused| *refused)? {
        None => Ok(None),
        Some(Value::Array(names)) => {
            let names = names.iter().map(|name| name.as_str().map(str::to_owned));
            match names.collect() {
                Some(names) => Ok(Some(names)),
                None => wrong("select is no list of attributes"),
            }
        }
        Some(_) => wrong("select is no list of attributes"),
    }
}

fn order(parameters: &Parameters, known: &[&str]) -> Result<Vec<(String, bool)>, Answer> {
    let Some(text) = parameters.text("order") else {
        return Ok(Vec::new());
    };
    // A text, or a list of texts as JSON.
    let parts = match serde_json::from_str::<Vec<String>>(&text) {
        Ok(list) => list,
        Err(_) => vec![text],
    };
    let parts = parts.iter().flat_map(|part| part.split(','));
    parts
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(|part| {
            let mut words = part.split_whitespace();
            let name = words.next().unwrap_or_default();
            // Attributes may come with the name of their table.
            let name = name.rsplit('.').next().unwrap_or_default();
            let descending = match words.next().map(str::to_ascii_lowercase).as_deref() {
                None | Some("asc") => false,
                Some("desc") => true,
                Some(_) => return wrong("order is an attribute, and asc or desc"),
            };
            if !known.contains(&name) || words.next().is_some() {
                return wrong("order names an attribute that there is not");
            }
            Ok((name.to_owned(), descending))
        })
        .collect()
}

impl Filter {
    fn read(filter: &Value, known: &[&str]) -> Result<Self, Answer> {
        let parts = filter.as_array().map_or(&[][..], Vec::as_slice);
        let [Value::String(attribute), Value::String(operator), operand] = parts else {
            return wrong("a filter is a list of attribute, operator and operand");
        };
        if !known.contains(&attribute.as_str()) {
            return wrong("a filter names an attribute that there is not");
        }
        let operator = operator.to_ascii_lowercase();
        if !OPERATORS.contains(&operator.as_str()) {
            return wrong(&format!(
                "the operator of a filter is one of {}",
                OPERATORS.join(" ")
            ));
        }
        let is_list = operand
            .as_array()
            .is_some_and(|values| values.len() <= MAX_VALUES);
        if operator.ends_with("in") && !is_list {
            return wrong("the operand of \"in\" is a list of at most 10000 values");
        }
        let is_long = operand
            .as_str()
            .is_some_and(|text| text.len() > MAX_PATTERN);
        if operator.ends_with("like") && is_long {
            return wrong("the pattern of \"like\" is a text of at most 1024 bytes");
        }
        Ok(Self {
            attribute: attribute.clone(),
            operator,
            operand: operand.clone(),
        })
    }

    fn has(&self, object: &Value) -> bool {
        let value = &object[&self.attribute];
        let order = || compare(value, &self.operand);
        let among = || {
            let values = self.operand.as_array().map_or(&[][..], Vec::as_slice);
            values
                .iter()
                .any(|other| compare(value, other) == Some(Ordering::Equal))
        };
        let like = |fold: bool| {
            let texts = (value.as_str(), self.operand.as_str());
            let (Some(value), Some(pattern)) = texts else {
                return false;
            };
            if fold {
                matches(&value.to_lowercase(), &pattern.to_lowercase())
            } else {
                matches(value, pattern)
            }
        };
        match self.operator.as_str() {
            "=" => order() == Some(Ordering::Equal),
            "!=" => order() != Some(Ordering::Equal),
            "<" => order() == Some(Ordering::Less),
            "<=" => order().is_some_and(Ordering::is_le),
            ">" => order() == Some(Ordering::Greater),
            ">=" => order().is_some_and(Ordering::is_ge),
            "in" => among(),
            "not in" => !among(),
            "like" => like(false),
            _ => like(true),
        }
    }
}

/// The order of two values; a number may be written as a text. None if they are not comparable.
fn compare(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Number(_), Value::String(text)) => {
            a.as_f64()?.partial_cmp(&text.trim().parse::<f64>().ok()?)
        }
        (Value::Number(_), Value::Number(_)) => a.as_f64()?.partial_cmp(&b.as_f64()?),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (Value::Null, Value::Null) => Some(Ordering::Equal),
        (a, b) if a == b => Some(Ordering::Equal),
        _ => None,
    }
}

/// The order in which values are listed: what is not there first, then by kind.
fn in_order(a: &Value, b: &Value) -> Ordering {
    let rank = |value: &Value| match value {
        Value::Null => 0,
        Value::Bool(_) => 1,
        Value::Number(_) => 2,
        Value::String(_) => 3,
        Value::Array(_) | Value::Object(_) => 4,
    };
    let alike = || match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Number(_), Value::Number(_)) | (Value::String(_), Value::String(_)) => {
            compare(a, b).unwrap_or(Ordering::Equal)
        }
        _ => Ordering::Equal,
    };
    rank(a).cmp(&rank(b)).then_with(alike)
}

/// Whether a text is as a pattern says, in which % stands for any text and _ for any character.
/// Takes time in proportion to the product of their lengths at most.
fn matches(text: &str, pattern: &str) -> bool {
    let (text, pattern): (Vec<char>, Vec<char>) =
        (text.chars().collect(), pattern.chars().collect());
    let (mut t, mut p) = (0, 0);
    let mut retry = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('%') => {
                retry = Some((t, p));
                p += 1;
            }
            Some(&c) if c == '_' || c == text[t] => (t, p) = (t + 1, p + 1),
            _ => match retry {
                Some((from, percent)) => {
                    retry = Some((from + 1, percent));
                    (t, p) = (from + 1, percent + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&c| c == '%')
}

fn wrong<T>(message: &str) -> Result<T, Answer> {
    Err(errors(StatusCode::UNPROCESSABLE_ENTITY, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_sql() {
        for (text, pattern, expected) in [
            ("abc", "abc", true),
            ("abc", "a%", true),
            ("abc", "%c", true),
            ("abc", "a_c", true),
            ("abc", "%b%", true),
            ("", "%", true),
            ("abc", "ab", false),
            ("abc", "%d%", false),
            ("aXbXc", "a%b%d", false),
            ("abc", "", false),
        ] {
            assert_eq!(matches(text, pattern), expected, "{text} like {pattern}");
        }
        // What would take for ever with backtracking.
        assert!(!matches(
            &"a".repeat(5000),
            &format!("{}b", "%a".repeat(500))
        ));
    }

    #[test]
    fn numbers_are_compared_with_texts() {
        let filter = |operator: &str, operand: Value| {
            let filter = json!(["priority", operator, operand]);
            Filter::read(&filter, &["priority"]).unwrap()
        };
        let object = json!({ "priority": 500 });
        assert!(filter(">", json!("0")).has(&object));
        assert!(filter("<=", json!(500)).has(&object));
        assert!(!filter("<", json!("500")).has(&object));
        assert!(filter("in", json!([1, "500"])).has(&object));
        assert!(filter("not in", json!([])).has(&object));
        assert!(!filter("=", json!("x' OR 1=1 --")).has(&object));
        assert!(Filter::read(&json!(["x", "=", 1]), &["priority"]).is_err());
        assert!(Filter::read(&json!(["priority", "~", 1]), &["priority"]).is_err());
        assert!(Filter::read(&json!(["priority", "in", 1]), &["priority"]).is_err());
        assert!(Filter::read(&json!("priority"), &["priority"]).is_err());
        for (length, fits) in [(MAX_PATTERN, true), (MAX_PATTERN + 1, false)] {
            for operator in ["like", "iLike"] {
                let filter = json!(["name", operator, "%".repeat(length)]);
                assert_eq!(Filter::read(&filter, &["name"]).is_ok(), fits);
            }
        }
    }
}
