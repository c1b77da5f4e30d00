//! Who asks.

use std::fmt;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Request, Response, StatusCode, header};
use axum::middleware::Next;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use subtle::ConstantTimeEq as _;

use crate::errors;

/// A secret that clients present. Its `Debug` form hides it.
///
/// ```
/// let token = longshore_http::Token::new("secret");
/// assert!(token.matches("secret") && !token.matches("Secret") && !token.matches(""));
/// assert!(!format!("{token:?}").contains("secret"));
/// assert!(!longshore_http::Token::new("").matches(""), "an empty token lets nobody in");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// A token; an empty one lets nobody in.
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    /// Whether there is a token at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this was presented, in a time that does not tell how much of it was right.
    pub fn matches(&self, presented: &str) -> bool {
        !self.is_empty() && bool::from(self.0.as_bytes().ct_eq(presented.as_bytes()))
    }

    /// The secret itself, for whoever presents it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// The token that a request presents: `Authorization` with the scheme `Bearer`, `OAuth2` or
/// `Basic` (its password), the query's `api_token`, or the cookie `arvados_api_token` (base64url),
/// in this order.
///
/// ```
/// use axum::http::{HeaderMap, header};
/// let mut headers = HeaderMap::new();
/// assert_eq!(longshore_http::presented(&headers, Some("api_token=a%2Fb")).as_deref(), Some("a/b"));
/// headers.insert(header::AUTHORIZATION, "Bearer xyz".parse()?);
/// assert_eq!(longshore_http::presented(&headers, None).as_deref(), Some("xyz"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn presented(headers: &HeaderMap, query: Option<&str>) -> Option<String> {
    let authorization = headers.get_all(header::AUTHORIZATION).iter();
    authorization
        .filter_map(|value| value.to_str().ok().and_then(from_authorization))
        .chain(query.and_then(from_query))
        .chain(headers.get_all(header::COOKIE).iter().filter_map(|value| {
            let cookies = value.to_str().ok()?;
            cookies.split(';').find_map(from_cookie)
        }))
        .next()
}

/// Lets a request through whose token is `token`; for the middleware of a router. Without one it
/// is answered with 401, with another one with 403, and an error in words.
pub async fn authorize(
    State(token): State<Token>,
    request: Request<Body>,
    next: Next,
) -> Response<Body> {
    match presented(request.headers(), request.uri().query()) {
        None => errors(
            StatusCode::UNAUTHORIZED,
            "Not logged in: no token was presented",
        ),
        Some(other) if !token.matches(&other) => errors(
            StatusCode::FORBIDDEN,
            "the token is not the one of this service",
        ),
        Some(_) => next.run(request).await,
    }
}

fn from_authorization(value: &str) -> Option<String> {
    let (scheme, rest) = value.trim().split_once(' ')?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("bearer") || scheme.eq_ignore_ascii_case("oauth2") {
        return Some(rest.to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(rest).ok()?).ok()?;
    text.split_once(':')
        .map(|(_, password)| password.to_owned())
}

fn from_query(query: &str) -> Option<String> {
    form_urlencoded::parse(query.as_bytes())
        .find(|(name, _)| name == "api_token")
        .map(|(_, value)| value.into_owned())
}

fn from_cookie(cookie: &str) -> Option<String> {
    let (name, value) = cookie.trim().split_once('=')?;
    if name != "arvados_api_token" {
        return None;
    }
    let decoded = URL_SAFE
        .decode(value)
        .or_else(|_| URL_SAFE_NO_PAD.decode(value));
    String::from_utf8(decoded.ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: header::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().unwrap())])
    }

    #[test]
    fn each_form_is_understood() {
        for value in [
            "Bearer to/ken",
            "bearer to/ken",
            "OAuth2 to/ken",
            "Basic dTp0by9rZW4=",
        ] {
            let headers = with(header::AUTHORIZATION, value);
            assert_eq!(
                presented(&headers, None).as_deref(),
                Some("to/ken"),
                "{value}"
            );
        }
        for value in [
            "arvados_api_token=dG8va2Vu",
            "a=b; arvados_api_token=dG8va2Vu; c=d",
        ] {
            let headers = with(header::COOKIE, value);
            assert_eq!(
                presented(&headers, None).as_deref(),
                Some("to/ken"),
                "{value}"
            );
        }
        let none = HeaderMap::new();
        assert_eq!(
            presented(&none, Some("x=1&api_token=to/ken")).as_deref(),
            Some("to/ken")
        );
        assert_eq!(presented(&none, Some("x=1")), None);
    }

    #[test]
    fn nonsense_is_no_token() {
        for value in [
            "",
            "Bearer",
            "Digest abc",
            "Basic !!!",
            "Basic dTp0by9rZW4",
            "Basic /////w==",
        ] {
            assert_eq!(
                presented(&with(header::AUTHORIZATION, value), None),
                None,
                "{value}"
            );
        }
        assert_eq!(
            presented(&with(header::COOKIE, "arvados_api_token=%%"), None),
            None
        );
    }
}
