//! Who may ask: names in the Host header, origins, tokens. Pure except for the count of bad tries.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{AUTHORIZATION, HOST, ORIGIN};
use hyper::{HeaderMap, Method, StatusCode, Uri};
use subtle::ConstantTimeEq as _;

use crate::base::secret::Secret;

/// Bad tries per address and [`WINDOW`].
const TRIES: u32 = 10;
const WINDOW: Duration = Duration::from_secs(60);
/// Addresses that are remembered; beyond that the oldest are forgotten.
const ADDRESSES: usize = 1_024;

/// A refusal: status and one line for people.
pub(super) type Refusal = (StatusCode, &'static str);

/// Checks that the request names this server, so that a page of another site cannot reach it under
/// a name of its own (DNS rebinding).
///
/// `local` is the address at which the connection came in; `names` are lower case.
pub(super) fn check_host(
    uri: &Uri,
    headers: &HeaderMap,
    local: IpAddr,
    names: &[String],
) -> Result<(), Refusal> {
    let mut hosts = headers.get_all(HOST).iter();
    let (first, second) = (hosts.next(), hosts.next());
    let Some(host) = first.filter(|_| second.is_none()) else {
        return Err((StatusCode::BAD_REQUEST, "exactly one Host header is needed"));
    };
    let refusal = (
        StatusCode::MISDIRECTED_REQUEST,
        "this name is not served here: add it to listen.allowed_hosts",
    );
    let host = host.to_str().map_err(|_| refusal)?;
    let absolute = uri.authority().map(hyper::http::uri::Authority::as_str);
    let known = |host: &str| is_known(host, local, names);
    if known(host) && absolute.is_none_or(known) { Ok(()) } else { Err(refusal) }
}

fn is_known(authority: &str, local: IpAddr, names: &[String]) -> bool {
    let host = without_port(authority).to_ascii_lowercase();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    match bare.parse::<IpAddr>() {
        Ok(ip) => {
            let loopback = ["127.0.0.1", "::1"].contains(&bare);
            loopback || ip == local.to_canonical() || names.contains(&host)
        }
        Err(_) => host == "localhost" || names.contains(&host),
    }
}

/// Returns `host` of `host:port`; brackets stay.
fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
            // `::1` without brackets is no valid Host; it is not cut to `:`.
            if host.contains(':') && !host.ends_with(']') { authority } else { host }
        }
        Some(_) | None => authority,
    }
}

/// Refuses requests that change something and come from a page of another site.
pub(super) fn check_origin(
    method: &Method,
    headers: &HeaderMap,
    local: IpAddr,
    names: &[String],
) -> Result<(), Refusal> {
    if [Method::GET, Method::HEAD].contains(method) {
        return Ok(());
    }
    let refusal = (StatusCode::FORBIDDEN, "requests of other sites are refused");
    let site = headers.get("sec-fetch-site").map(|site| site.as_bytes());
    if site.is_some_and(|site| ![b"same-origin".as_slice(), b"none"].contains(&site)) {
        return Err(refusal);
    }
    let Some(origin) = headers.get(ORIGIN) else { return Ok(()) };
    let authority = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    match authority {
        Some((_, authority)) if is_known(authority, local, names) => Ok(()),
        Some(_) | None => Err(refusal),
    }
}

/// What the Authorization header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Credentials {
    Missing,
    Wrong,
    Right,
}

/// Compares the Authorization header with `token`, in constant time: `Bearer TOKEN`, `Token TOKEN` as
/// clients of InfluxDB send it, or `Basic` with the token as password, which browsers ask for by
/// themselves.
pub(super) fn credentials(headers: &HeaderMap, token: &Secret) -> Credentials {
    let Some(header) = headers.get(AUTHORIZATION) else { return Credentials::Missing };
    let Some((scheme, value)) = header.to_str().ok().and_then(|text| text.split_once(' ')) else {
        return Credentials::Wrong;
    };
    let sent = if ["bearer", "token"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
        Some(value.trim().as_bytes().to_vec())
    } else if scheme.eq_ignore_ascii_case("basic") {
        STANDARD.decode(value.trim()).ok().and_then(|pair| {
            let colon = pair.iter().position(|byte| *byte == b':')?;
            pair.get(colon + 1..).map(<[u8]>::to_vec)
        })
    } else {
        None
    };
    let right = sent.is_some_and(|sent| bool::from(sent.ct_eq(token.reveal().as_bytes())));
    if right { Credentials::Right } else { Credentials::Wrong }
}

/// Counts bad tries by address.
#[derive(Debug, Default)]
pub(super) struct Tries {
    bad: Mutex<HashMap<IpAddr, (Instant, u32)>>,
}

impl Tries {
    /// Returns how long `address` has to wait because of too many bad tries, if it has to.
    pub(super) fn wait(&self, address: IpAddr, now: Instant) -> Option<Duration> {
        let bad = self.bad.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, count) = bad.get(&address)?;
        let left = WINDOW.checked_sub(now.saturating_duration_since(*since))?;
        (*count >= TRIES && !left.is_zero()).then_some(left)
    }

    /// Counts a bad try of `address`.
    pub(super) fn count(&self, address: IpAddr, now: Instant) {
        let mut bad = self.bad.lock().unwrap_or_else(PoisonError::into_inner);
        if bad.len() >= ADDRESSES && !bad.contains_key(&address) {
            let oldest = bad.iter().min_by_key(|(_, (since, _))| *since);
            if let Some(oldest) = oldest.map(|(address, _)| *address) {
                bad.remove(&oldest);
            }
        }
        let entry = bad.entry(address).or_insert((now, 0));
        if now.saturating_duration_since(entry.0) >= WINDOW {
            *entry = (now, 0);
        }
        entry.1 = entry.1.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCAL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 5));

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    fn host(host: &str) -> Option<StatusCode> {
        let names = ["status.example.org".to_owned()];
        check_host(&Uri::from_static("/"), &headers(&[("host", host)]), LOCAL, &names)
            .err()
            .map(|(status, _)| status)
    }

    #[test]
    fn own_names_are_served_with_any_port_and_others_are_not() {
        for good in [
            "localhost",
            "LOCALHOST:80",
            "127.0.0.1:7480",
            "[::1]",
            "[::1]:7480",
            "10.0.0.5:7480",
            "status.example.org",
            "Status.Example.Org:443",
        ] {
            assert_eq!(host(good), None, "{good}");
        }
        for bad in [
            "evil.example",
            "localhost.evil.example",
            "10.0.0.6",
            "127.0.0.1.evil.example",
            "localhost:80@evil.example",
            "localhost:x",
            "",
        ] {
            assert_eq!(host(bad), Some(StatusCode::MISDIRECTED_REQUEST), "{bad}");
        }
    }

    #[test]
    fn a_request_names_exactly_one_host_and_an_absolute_uri_counts() {
        let check = |uri: &'static str, pairs: &[(&'static str, &str)]| {
            check_host(&Uri::from_static(uri), &headers(pairs), LOCAL, &[]).err().map(|(s, _)| s)
        };
        let local = ("host", "localhost");
        assert_eq!(check("/", &[]), Some(StatusCode::BAD_REQUEST));
        assert_eq!(check("/", &[local, ("host", "evil")]), Some(StatusCode::BAD_REQUEST));
        assert_eq!(check("http://localhost:1/", &[local]), None);
        let evil = check("http://evil.example/", &[local]);
        assert_eq!(evil, Some(StatusCode::MISDIRECTED_REQUEST));
    }

    #[test]
    fn pages_of_other_sites_cannot_post() {
        let post = |pairs: &[(&'static str, &str)]| {
            check_origin(&Method::POST, &headers(pairs), LOCAL, &[]).is_ok()
        };
        assert!(post(&[]));
        assert!(post(&[("origin", "http://127.0.0.1:7480"), ("sec-fetch-site", "same-origin")]));
        assert!(!post(&[("origin", "https://evil.example")]));
        assert!(!post(&[("origin", "null")]));
        assert!(!post(&[("sec-fetch-site", "cross-site")]));
        assert!(!post(&[("sec-fetch-site", "same-site")]));
        let evil = headers(&[("origin", "https://evil.example")]);
        assert!(check_origin(&Method::GET, &evil, LOCAL, &[]).is_ok());
    }

    #[test]
    fn tokens_come_as_bearer_or_as_the_password_of_a_browser() {
        let token = Secret::new("s3cret");
        let check = |value: &str| credentials(&headers(&[("authorization", value)]), &token);
        assert_eq!(credentials(&HeaderMap::new(), &token), Credentials::Missing);
        assert_eq!(check("Bearer s3cret"), Credentials::Right);
        assert_eq!(check("Token s3cret"), Credentials::Right);
        assert_eq!(check("bearer  s3cret"), Credentials::Right);
        // "any:s3cret"
        assert_eq!(check("Basic YW55OnMzY3JldA=="), Credentials::Right);
        let bad =
            ["Bearer", "Bearer s3cre", "Bearer s3cretX", "Basic x", "Digest s3cret", "s3cret"];
        for wrong in bad {
            assert_eq!(check(wrong), Credentials::Wrong, "{wrong}");
        }
    }

    #[test]
    fn ten_bad_tries_close_the_door_for_the_rest_of_the_minute() {
        let (tries, start) = (Tries::default(), Instant::now());
        for _ in 0..TRIES {
            assert_eq!(tries.wait(LOCAL, start), None);
            tries.count(LOCAL, start);
        }
        assert_eq!(tries.wait(LOCAL, start), Some(WINDOW));
        assert_eq!(tries.wait(IpAddr::from([127, 0, 0, 1]), start), None);
        assert_eq!(tries.wait(LOCAL, start + WINDOW), None);
        tries.count(LOCAL, start + WINDOW);
        assert_eq!(tries.wait(LOCAL, start + WINDOW), None);
    }

    #[test]
    fn the_memory_of_addresses_is_bounded() {
        let (tries, start) = (Tries::default(), Instant::now());
        for index in 0..3_000_u32 {
            let address = std::net::Ipv4Addr::from(index).into();
            tries.count(address, start + Duration::from_millis(index.into()));
        }
        assert_eq!(tries.bad.lock().unwrap().len(), ADDRESSES);
    }
}
