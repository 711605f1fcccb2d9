//! One poll of a daemon over HTTP: one request, or several that become one document.

use std::time::Instant;

use serde_json::{Map, Value};

use super::fetch::{self, Endpoint};
use super::json::Document;
use crate::base::http::{Client, Limits};
use crate::base::secret::Secret;
use crate::config::parts::{Ask, Part};
use crate::model::observation::{Failure, FailureReason};

/// What is asked at every poll.
#[derive(Debug)]
pub(super) enum Endpoints {
    /// One URL that answers the whole document.
    One(Endpoint),
    /// Several, whose documents are the parts of one.
    Parts(Vec<(Part, Endpoint)>),
}

impl Endpoints {
    /// Checks the URLs of a daemon and its secret header.
    ///
    /// # Errors
    /// Words for the user, without the secret and without the URL's path.
    pub(super) fn new(
        url: &str,
        authorization: Option<&Secret>,
        ask: &Ask,
        parts: &[Part],
    ) -> Result<Self, String> {
        if parts.is_empty() {
            return Endpoint::new(url, authorization, ask).map(Self::One);
        }
        let base = url.trim_end_matches('/');
        let endpoint = |part: &Part| {
            let endpoint = Endpoint::new(&[base, &part.path].concat(), authorization, &part.ask)?;
            Ok((part.clone(), endpoint))
        };
        parts.iter().map(endpoint).collect::<Result<_, String>>().map(Self::Parts)
    }
}

/// Polls over HTTP. The limits are those of the whole poll: parts are asked for one after another,
/// each with the time and the bytes that those before it have left.
///
/// # Errors
/// See [`FailureReason`]; the words name the part.
pub(super) async fn http(
    client: &Client,
    endpoints: &Endpoints,
    limits: Limits,
) -> Result<Document, Failure> {
    let parts = match endpoints {
        Endpoints::One(endpoint) => return fetch::http(client, endpoint, limits).await,
        Endpoints::Parts(parts) => parts,
    };
    let started = Instant::now();
    let mut body = limits.body;
    let (mut whole, mut oddities) = (Map::new(), Vec::new());
    for (part, endpoint) in parts {
        let time = limits.time.saturating_sub(started.elapsed());
        match fetch::sized(client, endpoint, Limits { time, body }).await {
            Ok((document, size)) => {
                body = body.saturating_sub(size);
                whole.insert(part.name.clone(), document.value);
                oddities.extend(document.oddities);
            }
            // Nobody is there at all: the others would not answer either.
            Err(failure) if part.optional && failure.reason == FailureReason::HttpStatus => {}
            Err(failure) => {
                let words = format!("part {} ({}): {}", part.name, part.path, failure.words);
                return Err(Failure::new(failure.reason, words));
            }
        }
    }
    Ok(Document { value: Value::Object(whole), oddities })
}
