//! Every route in one table, and the way of a request through it.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Incoming};
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, REFERRER_POLICY,
    RETRY_AFTER, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};

use super::alerts::{self, Ask};
use super::guard::{self, Credentials, Refusal, Tries};
use super::{api, page, push, socket, viewer};
use crate::base::metrics::{Metrics, Reason};

/// What a route answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Endpoint {
    Page,
    Asset(&'static str),
    Module,
    Healthz,
    Readyz,
    Metrics,
    Status,
    Ping,
    Settings,
    Write,
    PushStatus,
    PushSocket,
    Viewer,
    Runbooks,
    Dashboards,
    Dashboard,
    Query,
    Alerts,
    AskAlerts(Ask),
}

/// Largest accepted body of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyLimit {
    /// So many bytes.
    Bytes(usize),
    /// `collect.max_document`
    Document,
}

impl BodyLimit {
    const fn bytes(self, site: &api::Site) -> usize {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Document => site.statuses.limit,
        }
    }
}

/// Who may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Everybody who reaches the listener.
    Open,
    /// Those who send `listen.token`, where one is set.
    Token,
}

/// One route.
#[derive(Debug)]
pub(super) struct Route {
    /// GET serves HEAD too.
    pub(super) method: Method,
    /// `{name}` at its end stands for one segment that is not empty.
    pub(super) path: &'static str,
    pub(super) access: Access,
    pub(super) body_limit: BodyLimit,
    pub(super) endpoint: Endpoint,
}

impl Route {
    /// Compares `path` with the route's; returns what stands for its `{name}`, as it was sent, empty
    /// in a route without one.
    fn matched<'a>(&self, path: &'a str) -> Option<&'a str> {
        match self.path.split_once('{') {
            None => (self.path == path).then_some(""),
            Some((start, _)) => path
                .strip_prefix(start)
                .filter(|segment| !segment.is_empty() && !segment.contains('/')),
        }
    }
}

const fn get(path: &'static str, access: Access, endpoint: Endpoint) -> Route {
    let body_limit = BodyLimit::Bytes(0);
    Route { method: Method::GET, path, access, body_limit, endpoint }
}

const fn post(path: &'static str, body_limit: BodyLimit, endpoint: Endpoint) -> Route {
    Route { method: Method::POST, path, access: Access::Token, body_limit, endpoint }
}

const fn asset(path: &'static str, file: &'static str) -> Route {
    get(path, Access::Token, Endpoint::Asset(file))
}

/// All routes.
pub(super) static ROUTES: &[Route] = &[
    get("/", Access::Token, Endpoint::Page),
    get("/web/status.css", Access::Token, Endpoint::Asset("web/status.css")),
    get("/web/status.js", Access::Token, Endpoint::Asset("web/status.js")),
    get("/web/icon.svg", Access::Token, Endpoint::Asset("web/icon.svg")),
    get("/d/{uid}", Access::Token, Endpoint::Viewer),
    get("/runbooks", Access::Token, Endpoint::Runbooks),
    asset("/web/viewer.css", "web/viewer.css"),
    get("/web/viewer/{file}", Access::Token, Endpoint::Module),
    asset("/web/vendor/uplot/uPlot.iife.min.js", "web/vendor/uplot/uPlot.iife.min.js"),
    asset("/web/vendor/uplot/uPlot.min.css", "web/vendor/uplot/uPlot.min.css"),
    get("/healthz", Access::Open, Endpoint::Healthz),
    get("/readyz", Access::Token, Endpoint::Readyz),
    get("/metrics", Access::Token, Endpoint::Metrics),
    get("/api/v1/status", Access::Token, Endpoint::Status),
    get("/api/v1/dashboards", Access::Token, Endpoint::Dashboards),
    get("/api/v1/dashboards/{uid}", Access::Token, Endpoint::Dashboard),
    // Changes nothing; it is no GET because all chosen values do not fit into a path.
    post("/api/v1/query/{uid}", BodyLimit::Bytes(viewer::BODY_LIMIT), Endpoint::Query),
    // What line-protocol clients ask before they write; tells nothing that needs a token.
    get("/ping", Access::Open, Endpoint::Ping),
    get("/settings", Access::Open, Endpoint::Settings),
    post("/write", BodyLimit::Bytes(push::BODY_LIMIT), Endpoint::Write),
    post("/api/v2/write", BodyLimit::Bytes(push::BODY_LIMIT), Endpoint::Write),
    post("/api/v1/push/{daemon}", BodyLimit::Document, Endpoint::PushStatus),
    get("/ws/push/{daemon}", Access::Token, Endpoint::PushSocket),
    get("/api/v1/alerts", Access::Token, Endpoint::Alerts),
    post(
        "/api/v1/alerts/mute",
        BodyLimit::Bytes(alerts::MUTE_LIMIT),
        Endpoint::AskAlerts(Ask::Mute),
    ),
    post(
        "/api/v1/alerts/unmute",
        BodyLimit::Bytes(alerts::MUTE_LIMIT),
        Endpoint::AskAlerts(Ask::Unmute),
    ),
    post(
        "/grafana/webhook",
        BodyLimit::Bytes(alerts::WEBHOOK_LIMIT),
        Endpoint::AskAlerts(Ask::Webhook),
    ),
];

/// Longest accepted path with query, bytes.
const LONGEST_PATH: usize = 8 * 1024;
/// Time in which the body of a request must be there.
const BODY_TIME: Duration = Duration::from_secs(10);
/// Bytes beyond a route's limit that are read and thrown away.
const DISCARDED: usize = 64 << 20;
const TOO_LARGE: Refusal = (StatusCode::PAYLOAD_TOO_LARGE, "the body is too large");

/// Sent with every answer. Scripts and styles come from own paths only; nothing is inline.
const SECURITY: [(hyper::header::HeaderName, &str); 4] = [
    (
        CONTENT_SECURITY_POLICY,
        "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'",
    ),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
    (REFERRER_POLICY, "no-referrer"),
];

/// An answer; its body is whole in memory.
pub(super) type Answer = Response<Full<Bytes>>;

/// Makes an answer.
pub(super) fn answer(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// Makes an answer of one line of text.
pub(super) fn line(status: StatusCode, text: &str) -> Answer {
    answer(status, "text/plain; charset=utf-8", format!("{text}\n"))
}

/// Both ends of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ends {
    pub(super) peer: SocketAddr,
    pub(super) local: SocketAddr,
}

/// What decides over a request before its route does.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) token: Option<crate::base::secret::Secret>,
    /// Lower case.
    pub(super) allowed_hosts: Vec<String>,
    pub(super) tries: Tries,
}

/// Answers one request.
pub(super) async fn respond(site: &api::Site, ends: Ends, request: Request<Incoming>) -> Answer {
    let (parts, body) = request.into_parts();
    let mut response = match admit(&site.door, ends, &parts, Instant::now()) {
        Err(refused) => *refused,
        Ok((route, segment)) => match whole(body, route.body_limit.bytes(site)).await {
            Err((status, text)) => line(status, text),
            Ok(body) => handle(site, ends, route.endpoint, segment, &parts, body).await,
        },
    };
    let headers = response.headers_mut();
    for (name, value) in SECURITY {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    count(&site.metrics, response.status());
    response
}

/// Returns the answer of an endpoint. Handlers that wait for something are awaited here; the body
/// is within the route's limit, and `segment` stands for the route's `{name}`.
async fn handle(
    site: &api::Site,
    ends: Ends,
    endpoint: Endpoint,
    segment: &str,
    parts: &Parts,
    body: Bytes,
) -> Answer {
    match endpoint {
        Endpoint::Page => {
            let links = site.viewer.links();
            page::page(&(site.report)(), site.clock.now(), site.address, &links)
        }
        Endpoint::Asset(path) => api::asset(path),
        Endpoint::Module => viewer::module(segment),
        Endpoint::Healthz => line(StatusCode::OK, "ok"),
        Endpoint::Readyz => api::readyz(&site.board),
        Endpoint::Metrics => site.metrics(&parts.headers, Instant::now()),
        Endpoint::Status => api::status(&(site.report)()),
        Endpoint::Ping => line(StatusCode::NO_CONTENT, ""),
        Endpoint::Settings => answer(StatusCode::OK, api::JSON, push::settings()),
        Endpoint::Write => push::write(&site.intake, parts, body).await,
        Endpoint::PushStatus => push::status(&site.statuses, segment, parts, body).await,
        Endpoint::PushSocket => socket::open(site, ends, segment, parts),
        Endpoint::Viewer => site.viewer.page(segment),
        Endpoint::Runbooks => {
            answer(StatusCode::OK, "text/html; charset=utf-8", site.runbooks.clone())
        }
        Endpoint::Dashboards => site.viewer.list(),
        Endpoint::Dashboard => site.viewer.model(segment),
        Endpoint::Query => site.viewer.query(segment, &body).await,
        Endpoint::Alerts => alerts::list(&site.alerts),
        Endpoint::AskAlerts(what) => alerts::ask(&site.alerts, what, body).await,
    }
}

/// A route and what stands for its `{name}`.
type Found<'a> = (&'static Route, &'a str);

/// Returns the route of a request that may use it.
///
/// The answer is boxed because it is rare and much larger than a route.
fn admit<'a>(
    door: &Door,
    ends: Ends,
    parts: &'a Parts,
    now: Instant,
) -> Result<Found<'a>, Box<Answer>> {
    let refuse = |(status, text): Refusal| Box::new(line(status, text));
    let local = ends.local.ip();
    let names = &door.allowed_hosts;
    guard::check_host(&parts.uri, &parts.headers, local, names).map_err(refuse)?;
    guard::check_origin(&parts.method, &parts.headers, local, names).map_err(refuse)?;
    let length = parts.uri.path_and_query().map_or(0, |path| path.as_str().len());
    if length > LONGEST_PATH {
        return Err(refuse((StatusCode::URI_TOO_LONG, "the path is too long")));
    }
    let found = find(&parts.method, parts.uri.path());
    let open = matches!(&found, Ok((route, _)) if route.access == Access::Open);
    if !open {
        check_token(door, ends.peer.ip(), &parts.headers, now)?;
    }
    found
}

/// Returns the route, or the answer 404 or 405.
fn find<'a>(method: &Method, path: &'a str) -> Result<Found<'a>, Box<Answer>> {
    let wanted = if method == Method::HEAD { &Method::GET } else { method };
    let mut allowed = Vec::new();
    for route in ROUTES {
        let Some(segment) = route.matched(path) else { continue };
        if route.method == wanted {
            return Ok((route, segment));
        }
        allowed.push(route.method.as_str());
        if route.method == Method::GET {
            allowed.push("HEAD");
        }
    }
    if allowed.is_empty() {
        return Err(Box::new(line(StatusCode::NOT_FOUND, "there is nothing at this path")));
    }
    let mut response = line(StatusCode::METHOD_NOT_ALLOWED, "this path has other methods");
    if let Ok(allow) = HeaderValue::from_str(&allowed.join(", ")) {
        response.headers_mut().insert(ALLOW, allow);
    }
    Err(Box::new(response))
}

fn check_token(
    door: &Door,
    peer: IpAddr,
    headers: &HeaderMap,
    now: Instant,
) -> Result<(), Box<Answer>> {
    let Some(token) = &door.token else { return Ok(()) };
    // Asked before the token is looked at: a guess during the pause tells nothing.
    if let Some(wait) = door.tries.wait(peer, now) {
        let mut response = line(StatusCode::TOO_MANY_REQUESTS, "too many wrong tokens, wait");
        let seconds = HeaderValue::from(wait.as_secs().saturating_add(1));
        response.headers_mut().insert(RETRY_AFTER, seconds);
        return Err(Box::new(response));
    }
    let text = match guard::credentials(headers, token) {
        Credentials::Right => return Ok(()),
        Credentials::Missing => "a token is needed: send Authorization: Bearer TOKEN",
        Credentials::Wrong => {
            door.tries.count(peer, now);
            "the token is wrong"
        }
    };
    let mut response = line(StatusCode::UNAUTHORIZED, text);
    let challenge = HeaderValue::from_static("Basic realm=\"periscope: any user, password=token\"");
    response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    Err(Box::new(response))
}

/// Reads the body within its limits of size and time.
async fn whole(body: Incoming, limit: usize) -> Result<Bytes, Refusal> {
    let size = body.size_hint().lower();
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    if limit == 0 || size > u64::try_from(limit.saturating_add(DISCARDED)).unwrap_or(u64::MAX) {
        return Err(TOO_LARGE);
    }
    tokio::time::timeout(BODY_TIME, read(body, limit)).await.unwrap_or_else(|_elapsed| {
        let is_large = size > u64::try_from(limit).unwrap_or(u64::MAX);
        let late = (StatusCode::REQUEST_TIMEOUT, "the body did not come in time");
        Err(if is_large { TOO_LARGE } else { late })
    })
}

/// Reads at most `limit` bytes. Somewhat more than that is read and thrown away: a client that is
/// still sending would see a broken connection instead of the answer.
async fn read(mut body: Incoming, limit: usize) -> Result<Bytes, Refusal> {
    let (mut kept, mut total) = (BytesMut::new(), 0_usize);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| (StatusCode::BAD_REQUEST, "the body cannot be read"))?;
        let Ok(data) = frame.into_data() else { continue };
        total = total.saturating_add(data.len());
        if total <= limit {
            kept.extend_from_slice(&data);
        } else if total > limit.saturating_add(DISCARDED) {
            break;
        } else {
            kept = BytesMut::new();
        }
    }
    if total > limit { Err(TOO_LARGE) } else { Ok(kept.freeze()) }
}

/// Counts an answer. Labels come out of a fixed set, whatever clients do.
pub(super) fn count(metrics: &Metrics, status: StatusCode) {
    const NAMES: [(u16, &str); 17] = [
        (101, "101"),
        (200, "200"),
        (204, "204"),
        (400, "400"),
        (401, "401"),
        (403, "403"),
        (404, "404"),
        (405, "405"),
        (408, "408"),
        (409, "409"),
        (413, "413"),
        (414, "414"),
        (415, "415"),
        (421, "421"),
        (426, "426"),
        (429, "429"),
        (503, "503"),
    ];
    let name = NAMES.iter().find(|(code, _)| *code == status.as_u16());
    let reason = name.map_or("other", |(_, name)| name);
    metrics.http_requests.get_or_create(&Reason { reason }).inc();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_found_and_paths_are_unique_per_method() {
        for route in ROUTES {
            assert!(std::ptr::eq(find(&route.method, route.path).unwrap().0, route));
        }
        assert!(find(&Method::HEAD, "/metrics").is_ok());
        assert_eq!(find(&Method::GET, "/metrics/").unwrap_err().status(), StatusCode::NOT_FOUND);
        let refused = find(&Method::POST, "/metrics").unwrap_err();
        assert_eq!(refused.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(refused.headers()[ALLOW], "GET, HEAD");
    }

    #[test]
    fn a_name_in_a_path_is_one_segment() {
        let push = |path: &str| find(&Method::POST, path).map(|(_, name)| name.to_owned());
        assert_eq!(push("/api/v1/push/ccxt").unwrap(), "ccxt");
        assert_eq!(push("/api/v1/push/a%2Fb").unwrap(), "a%2Fb");
        for other in ["/api/v1/push", "/api/v1/push/", "/api/v1/push/a/", "/api/v1/push/a/b"] {
            assert_eq!(push(other).unwrap_err().status(), StatusCode::NOT_FOUND, "{other}");
        }
        let refused = find(&Method::GET, "/api/v1/push/ccxt").unwrap_err();
        assert_eq!(refused.headers()[ALLOW], "POST");
    }

    #[test]
    fn every_asset_of_a_route_is_embedded() {
        for route in ROUTES {
            if let Endpoint::Asset(path) = route.endpoint {
                assert_eq!(api::asset(path).status(), StatusCode::OK, "{path}");
            }
        }
    }
}
