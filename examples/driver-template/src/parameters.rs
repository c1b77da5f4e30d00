//! Opening an instance set from JSON parameters.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use longshore_cloud::{Driver, InstanceSet, ParameterError, ParameterErrors};
use serde_json::{Map, Value};

use crate::{AcmeSet, Api, NAME};

const NAMES: [&str; 4] = ["region", "project", "token_file", "disk_gib"];
const MAX_TEXT_BYTES: usize = 1024;
const MAX_DISK_GIB: u64 = 16_384;

/// What the operator configures.
///
/// | parameter | meaning |
/// |---|---|
/// | `region` | the provider's name of the region, required |
/// | `project` | the project that pays, required |
/// | `token_file` | the absolute path of a file that holds the API token, required |
/// | `disk_gib` | the size of each disk in GiB, 1 to 16,384, at first 50 |
///
/// A secret is never a parameter, so that it is not in configurations and error messages.
///
/// ```
/// use longshore_driver_acme::Parameters;
/// let wrong = serde_json::json!({ "region": "", "disk_gib": 0, "colour": "red" });
/// // Everything at once: four that are missing or wrong, and one that there is not.
/// assert_eq!(Parameters::parse(&wrong).unwrap_err().0.len(), 5);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Parameters {
    /// Where the servers are.
    pub region: String,
    /// Which project they belong to.
    pub project: String,
    /// Where the API token is.
    pub token_file: PathBuf,
    /// How large their disks are.
    pub disk_gib: u64,
}

impl Parameters {
    /// Reads them, or says everything that is wrong and what to write instead.
    pub fn parse(value: &Value) -> Result<Self, ParameterErrors> {
        let nothing = Map::new();
        let map = match value {
            Value::Object(map) => map,
            Value::Null => &nothing,
            other => {
                let problem = format!("expected an object, found {}", name_of(other));
                let error = ParameterError::new("DriverParameters", problem);
                return Err(ParameterErrors(vec![error]));
            }
        };
        let mut errors = Vec::new();
        let region = text(map, "region", "a region such as \"north-1\"", &mut errors);
        let project = text(map, "project", "the project that pays", &mut errors);
        let file = "the absolute path of a file that holds the API token";
        let token_file = PathBuf::from(text(map, "token_file", file, &mut errors));
        if !token_file.as_os_str().is_empty() && !token_file.is_absolute() {
            errors.push(ParameterError::new("token_file", format!("give {file}")));
        }
        let disk_gib = disk(map, &mut errors);
        let known = NAMES.join(", ");
        for name in map.keys().filter(|name| !NAMES.contains(&name.as_str())) {
            let problem = format!("is not a parameter of this driver; it has {known}");
            errors.push(ParameterError::new(name, problem));
        }
        if !errors.is_empty() {
            return Err(ParameterErrors(errors));
        }
        Ok(Self {
            region,
            project,
            token_file,
            disk_gib,
        })
    }
}

/// A text that is required; empty if there is none, with an error.
fn text(
    map: &Map<String, Value>,
    name: &str,
    what: &str,
    errors: &mut Vec<ParameterError>,
) -> String {
    let problem = match map.get(name) {
        Some(Value::String(text)) if (1..=MAX_TEXT_BYTES).contains(&text.len()) => {
            return text.clone();
        }
        Some(Value::String(_)) => format!("give {what}: 1 to {MAX_TEXT_BYTES} bytes"),
        Some(other) => format!("give {what} as a string, not {}", name_of(other)),
        None => format!("is required: give {what}"),
    };
    errors.push(ParameterError::new(name, problem));
    String::new()
}

fn disk(map: &Map<String, Value>, errors: &mut Vec<ParameterError>) -> u64 {
    const USUAL_GIB: u64 = 50;
    let Some(value) = map.get("disk_gib") else {
        return USUAL_GIB;
    };
    let size = value.as_u64();
    if let Some(size) = size.filter(|size| (1..=MAX_DISK_GIB).contains(size)) {
        return size;
    }
    let problem = format!("give a whole number of GiB from 1 to {MAX_DISK_GIB}");
    errors.push(ParameterError::new("disk_gib", problem));
    USUAL_GIB
}

/// What a value is, never the value: somebody may have put a secret there.
fn name_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

type Connect = dyn Fn(&Parameters) -> Result<Arc<dyn Api>, ParameterError> + Send + Sync;

/// The driver `acme`.
///
/// No example: the crate's documentation has one.
pub struct AcmeDriver {
    connect: Arc<Connect>,
}

impl AcmeDriver {
    /// A driver that asks the provider through what `connect` gives: your [`Api`]. It makes no
    /// call that costs money or changes anything. What it cannot use (a token file that cannot be
    /// read) is the error of a parameter.
    pub fn new<F>(connect: F) -> Self
    where
        F: Fn(&Parameters) -> Result<Arc<dyn Api>, ParameterError> + Send + Sync + 'static,
    {
        Self {
            connect: Arc::new(connect),
        }
    }
}

impl fmt::Debug for AcmeDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcmeDriver").finish_non_exhaustive()
    }
}

#[async_trait]
impl Driver for AcmeDriver {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn open(&self, parameters: &Value) -> Result<Box<dyn InstanceSet>, ParameterErrors> {
        let parameters = Parameters::parse(parameters)?;
        let api = (self.connect)(&parameters).map_err(|error| ParameterErrors(vec![error]))?;
        Ok(Box::new(AcmeSet::new(api, parameters)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn wrong(value: &Value) -> Vec<String> {
        let errors = Parameters::parse(value).unwrap_err().0;
        errors.into_iter().map(|error| error.parameter).collect()
    }

    #[test]
    fn everything_wrong_is_said_at_once() {
        let bad = json!({ "region": 7, "token_file": "token", "disk_gib": 1.5, "Project": "x" });
        let expected = ["region", "project", "token_file", "disk_gib", "Project"];
        assert_eq!(wrong(&bad), expected);
        assert_eq!(wrong(&Value::Null), ["region", "project", "token_file"]);
        assert_eq!(wrong(&json!([])), ["DriverParameters"]);
    }

    #[test]
    fn a_value_in_the_wrong_place_is_not_repeated() {
        let bad = json!({ "region": ["s3cret"], "token_file": "s3cret", "project": "p" });
        let errors = Parameters::parse(&bad).unwrap_err();
        assert!(!errors.to_string().contains("s3cret"), "{errors}");
    }

    #[test]
    fn the_disk_has_bounds_and_a_usual_size() {
        let with = |more: Value| {
            let mut all = json!({ "region": "north-1", "project": "p", "token_file": "/t" });
            all["disk_gib"] = more;
            all
        };
        let read = |value: &Value| Parameters::parse(value).unwrap().disk_gib;
        assert_eq!(read(&with(json!(MAX_DISK_GIB))), MAX_DISK_GIB);
        for size in [json!(0), json!(MAX_DISK_GIB + 1), json!(-1), json!("50")] {
            assert_eq!(wrong(&with(size)), ["disk_gib"]);
        }
        let plain = json!({ "region": "north-1", "project": "p", "token_file": "/t" });
        assert_eq!(read(&plain), 50);
    }
}
