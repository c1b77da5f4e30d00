//! The text that Prometheus reads, as JSON: an array of the metric families, each as the JSON form
//! of the message `io.prometheus.client.MetricFamily`.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// Names and values.
type Labels = Vec<(String, String)>;

/// A family of metrics, as its lines say.
#[derive(Default)]
struct Family<'a> {
    name: &'a str,
    help: &'a str,
    kind: &'a str,
    /// By the labels that tell them apart.
    metrics: BTreeMap<Labels, Map<String, Value>>,
}

/// The families of a text, in its order. Lines that are not of the format are left out.
pub(super) fn families(text: &str) -> Value {
    let mut families: Vec<Family<'_>> = Vec::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap_or((rest, ""));
            families.push(Family {
                name,
                help,
                ..Family::default()
            });
        } else if let Some(rest) = line.strip_prefix("# TYPE ")
            && let Some((name, kind)) = rest.split_once(' ')
        {
            match families.last_mut() {
                Some(family) if family.name == name => family.kind = kind,
                _ => families.push(Family {
                    name,
                    kind,
                    ..Family::default()
                }),
            }
        } else if let Some(family) = families.last_mut()
            && let Some((name, labels, value)) = sample(line)
        {
            family.add(name, labels, value);
        }
    }
    families.iter().map(Family::json).collect()
}

impl Family<'_> {
    fn add(&mut self, name: &str, mut labels: Labels, value: &str) {
        let Some(suffix) = name.strip_prefix(self.name) else {
            return;
        };
        let part = match self.kind {
            "histogram" => "le",
            "summary" => "quantile",
            _ => "",
        };
        let at = labels.iter().position(|(name, _)| name == part);
        let bound = at.map(|at| labels.remove(at).1);
        let metric = self.metrics.entry(labels).or_default();
        match (self.kind, suffix, bound) {
            ("histogram" | "summary", "_count", _) => {
                metric.insert("sampleCount".into(), value.into());
            }
            ("histogram" | "summary", "_sum", _) => {
                metric.insert("sampleSum".into(), number(value));
            }
            ("histogram", _, Some(bound)) => push(
                metric,
                "bucket",
                json!({ "upperBound": number(&bound), "cumulativeCount": value }),
            ),
            ("summary", _, Some(bound)) => push(
                metric,
                "quantile",
                json!({ "quantile": number(&bound), "value": number(value) }),
            ),
            _ => {
                metric.insert("value".into(), number(value));
            }
        }
    }

    fn json(&self) -> Value {
        let kind = match self.kind {
            kind @ ("gauge" | "counter" | "histogram" | "summary") => kind,
            _ => "untyped",
        };
        let metrics = self.metrics.iter().map(|(labels, what)| {
            let labels = labels.iter();
            let labels: Vec<Value> = labels
                .map(|(name, value)| json!({ "name": name, "value": value }))
                .collect();
            let mut metric = json!({ "label": labels });
            metric[kind] = Value::Object(what.clone());
            metric
        });
        json!({
            "name": self.name,
            "help": self.help,
            "type": kind.to_uppercase(),
            "metric": metrics.collect::<Vec<_>>(),
        })
    }
}

fn push(metric: &mut Map<String, Value>, name: &str, item: Value) {
    let list = metric.entry(name).or_insert_with(|| json!([]));
    if let Value::Array(list) = list {
        list.push(item);
    }
}

/// A number, or what JSON has none for, as text.
fn number(text: &str) -> Value {
    let finite = text.parse::<f64>().ok().filter(|number| number.is_finite());
    match (finite, text) {
        (Some(number), _) => json!(number),
        (None, "+Inf") => "Infinity".into(),
        (None, "-Inf") => "-Infinity".into(),
        (None, _) => "NaN".into(),
    }
}

/// Name, labels and value of a line.
fn sample(line: &str) -> Option<(&str, Labels, &str)> {
    if line.starts_with('#') {
        return None;
    }
    let (head, value) = line.rsplit_once(' ')?;
    let Some((name, labels)) = head.split_once('{') else {
        return Some((head, Vec::new(), value));
    };
    Some((name, labels_of(labels.strip_suffix('}')?)?, value))
}

fn labels_of(mut text: &str) -> Option<Labels> {
    let mut labels = Vec::new();
    while !text.is_empty() {
        let (name, rest) = text.split_once("=\"")?;
        let mut value = String::new();
        let mut chars = rest.char_indices();
        let end = loop {
            match chars.next()? {
                (at, '"') => break at,
                (_, '\\') => value.push(match chars.next()?.1 {
                    'n' => '\n',
                    other => other,
                }),
                (_, other) => value.push(other),
            }
        };
        labels.push((name.trim_start_matches(',').to_owned(), value));
        text = rest.get(end + 1..)?;
    }
    Some(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_metric_has_its_form() {
        let text = r#"# HELP up Whether it is.
# TYPE up gauge
up{a="x,y=\"1\"",b="}"} 1
# HELP calls Calls.
# TYPE calls counter
calls_total{op="List"} 3
# TYPE seconds histogram
seconds_sum 1.5
seconds_count 2
seconds_bucket{le="1.0"} 1
seconds_bucket{le="+Inf"} 2
# HELP wait Wait.
# TYPE wait summary
wait{quantile="0.5"} 0.25
wait_sum 9
wait_count 4
nonsense{
# EOF
"#;
        let expected = json!([
            {"name": "up", "help": "Whether it is.", "type": "GAUGE", "metric": [{
                "label": [{"name": "a", "value": "x,y=\"1\""}, {"name": "b", "value": "}"}],
                "gauge": {"value": 1.0}}]},
            {"name": "calls", "help": "Calls.", "type": "COUNTER", "metric": [{
                "label": [{"name": "op", "value": "List"}], "counter": {"value": 3.0}}]},
            {"name": "seconds", "help": "", "type": "HISTOGRAM", "metric": [{
                "label": [], "histogram": {"sampleSum": 1.5, "sampleCount": "2", "bucket": [
                    {"upperBound": 1.0, "cumulativeCount": "1"},
                    {"upperBound": "Infinity", "cumulativeCount": "2"}]}}]},
            {"name": "wait", "help": "Wait.", "type": "SUMMARY", "metric": [{
                "label": [], "summary": {"sampleSum": 9.0, "sampleCount": "4", "quantile": [
                    {"quantile": 0.5, "value": 0.25}]}}]},
        ]);
        assert_eq!(families(text), expected);
    }
}
