//! The one place that knows the provider's codes.

use longshore_cloud::{CloudError, ErrorKind, Operation, Scope};
use longshore_types::InstanceType;

use crate::{ApiError, NAME};

/// What a failed request means; `about` is the type of a create.
///
/// Say `Other` of what you do not know: after it the pool looks whether something was made. A code
/// that wrongly counts as a refusal hides an instance, which costs money.
fn kind(error: &ApiError, about: Option<&InstanceType>) -> ErrorKind {
    let ApiError::Refused {
        status,
        code,
        retry_after,
        ..
    } = error
    else {
        return match error {
            ApiError::NoReply(_) => ErrorKind::TimedOut,
            _ => ErrorKind::Other,
        };
    };
    let retry_after = *retry_after;
    let scope = |narrow: fn(&InstanceType) -> Option<Scope>| {
        about.and_then(narrow).unwrap_or(Scope::Everything)
    };
    match (code.as_str(), *status) {
        ("server_quota", _) => ErrorKind::QuotaExceeded(Scope::Everything),
        ("vcpu_quota", _) => ErrorKind::QuotaExceeded(scope(|t| {
            Some(Scope::QuotaGroup(quota_group(t)?, t.market()))
        })),
        ("sold_out", _) => ErrorKind::NoCapacity(scope(|t| Some(Scope::Type(t.name.clone())))),
        ("spot_sold_out", _) => ErrorKind::NoCapacity(scope(|t| Some(Scope::Market(t.market())))),
        ("no_such_server", _) => ErrorKind::NotFound,
        ("unknown_type" | "unknown_image" | "bad_tag" | "bad_user_data" | "token_used", _) => {
            ErrorKind::InvalidRequest
        }
        ("rate_limited", _) | (_, 429) => ErrorKind::RateLimited { retry_after },
        (_, 401 | 403) => ErrorKind::Denied,
        (_, 408 | 504) => ErrorKind::TimedOut,
        _ => ErrorKind::Other,
    }
}

/// The quota that a type counts against: Acme limits the vCPUs of a family, the part of the
/// type's name before the dot.
pub(crate) fn quota_group(instance_type: &InstanceType) -> Option<String> {
    let (family, _) = instance_type.provider_type.split_once('.')?;
    Some(family.to_owned())
}

/// A failed request as an error of the interface, with the provider's words as its source.
pub(crate) fn cloud_error(
    operation: Operation,
    error: ApiError,
    about: Option<&InstanceType>,
) -> CloudError {
    let never_sent = matches!(error, ApiError::NotSent(_));
    let error = CloudError::new(operation, NAME, kind(&error, about), error);
    if never_sent {
        return error.never_sent();
    }
    error
}

/// The time of a call is over.
pub(crate) fn timed_out(operation: Operation, words: &'static str) -> CloudError {
    CloudError::new(operation, NAME, ErrorKind::TimedOut, words)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use longshore_cloud::Outcome;
    use longshore_types::{ByteSize, Market, Price};

    use super::*;

    const SOON: Option<Duration> = Some(Duration::from_secs(7));

    fn refused(status: u16, code: &str) -> ApiError {
        ApiError::Refused {
            status,
            code: code.into(),
            message: "words".into(),
            retry_after: SOON,
        }
    }

    #[test]
    fn only_what_never_left_surely_did_nothing() {
        let outcome = |error| cloud_error(Operation::Create, error, None).outcome();
        let words = String::from("words");
        assert_eq!(outcome(ApiError::NotSent(words.clone())), Outcome::NotDone);
        assert_eq!(outcome(ApiError::NoReply(words.clone())), Outcome::Unknown);
        assert_eq!(outcome(ApiError::Unreadable(words)), Outcome::Unknown);
    }

    #[test]
    fn each_code_has_its_kind() {
        let mut large = InstanceType::new("large", 8, ByteSize::gib(32), Price::default());
        large.provider_type = "c1.large".into();
        large.preemptible = true;
        let family = Scope::QuotaGroup("c1".into(), Market::Preemptible);
        let soon = ErrorKind::RateLimited { retry_after: SOON };
        for (status, code, expected) in [
            (429, "rate_limited", soon.clone()),
            (429, "something new", soon.clone()),
            (503, "rate_limited", soon),
            (
                403,
                "server_quota",
                ErrorKind::QuotaExceeded(Scope::Everything),
            ),
            (403, "vcpu_quota", ErrorKind::QuotaExceeded(family)),
            (
                503,
                "sold_out",
                ErrorKind::NoCapacity(Scope::Type("large".into())),
            ),
            (
                503,
                "spot_sold_out",
                ErrorKind::NoCapacity(Scope::Market(Market::Preemptible)),
            ),
            (404, "no_such_server", ErrorKind::NotFound),
            (400, "unknown_type", ErrorKind::InvalidRequest),
            (404, "unknown_image", ErrorKind::InvalidRequest),
            (400, "bad_tag", ErrorKind::InvalidRequest),
            (400, "bad_user_data", ErrorKind::InvalidRequest),
            (409, "token_used", ErrorKind::InvalidRequest),
            (401, "bad_credentials", ErrorKind::Denied),
            (403, "forbidden", ErrorKind::Denied),
            (504, "", ErrorKind::TimedOut),
            // What is not known may have acted.
            (404, "", ErrorKind::Other),
            (400, "something new", ErrorKind::Other),
            (500, "internal", ErrorKind::Other),
        ] {
            let seen = kind(&refused(status, code), Some(&large));
            assert_eq!(seen, expected, "{status} {code}");
        }
        let reset = ApiError::NoReply("connection reset".into());
        assert_eq!(kind(&reset, None), ErrorKind::TimedOut);
        let garbage = ApiError::Unreadable("<html>".into());
        assert_eq!(kind(&garbage, None), ErrorKind::Other);
        let everything = ErrorKind::NoCapacity(Scope::Everything);
        assert_eq!(kind(&refused(503, "sold_out"), None), everything);
    }
}
