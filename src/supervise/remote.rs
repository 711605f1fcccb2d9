//! An existing `QuestDB`: no child, the same checks of version and reachability.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::policy::{Limits, Watch, watch};
use super::publisher::Publisher;
use super::questdb::{OLDEST, parse_version};
use super::ready::{self, NotReady};
use super::task::{Setup, rest};
use crate::base::backoff::Backoff;
use crate::config;
use crate::model::server::{Endpoint, Login, Phase};

/// Longest pause between probes of a server that does not answer.
const PAUSE_LIMIT: Duration = Duration::from_secs(5);

/// Returns where the server answers and as whom.
pub fn endpoint(config: &config::Questdb) -> Endpoint {
    let login = config.user.clone().zip(config.password.clone());
    let login = login.map(|(user, password)| Login { user, password });
    let http = config.http.trim_end_matches('/');
    let http = if http.contains("://") { http.to_owned() } else { format!("http://{http}") };
    Endpoint {
        http,
        pg: config.pg.clone(),
        database: "qdb".to_owned(),
        admin: login.clone(),
        reader: login,
    }
}

/// Watches the server until `stop`.
pub(super) async fn run(
    setup: &Setup,
    limits: &Limits,
    publisher: &Publisher,
    stop: &CancellationToken,
) {
    let endpoint = endpoint(&setup.config);
    publisher.change(|state| state.endpoint = Some(endpoint.clone()));
    publisher.phase(Phase::Starting, &format!("connecting to {}", endpoint.http));
    let mut pauses = Backoff::new(limits.pause_first, PAUSE_LIMIT, setup.seed);
    while !stop.is_cancelled() {
        let pause = match first_answer(setup, &endpoint, limits).await {
            Ok(version) => {
                publisher.change(|state| {
                    state.version = version;
                    state.generation += 1;
                    state.restarts = state.generation - 1;
                });
                publisher.phase(Phase::Ready, "");
                pauses.reset();
                let reason = until_absent(setup, &endpoint, limits, publisher, stop).await;
                let Some(reason) = reason else { break };
                publisher.phase(Phase::Backoff, &reason);
                pauses.after_failure()
            }
            Err(Refusal { phase, reason }) => {
                publisher.phase(phase, &reason);
                // A wrong password or version is no outage: a try now and then is enough.
                pauses.after_failure().max(if phase == Phase::Broken {
                    PAUSE_LIMIT
                } else {
                    Duration::ZERO
                })
            }
        };
        if !rest(pause, stop).await {
            break;
        }
    }
    publisher.phase(Phase::Absent, "");
}

struct Refusal {
    phase: Phase,
    reason: String,
}

async fn first_answer(
    setup: &Setup,
    endpoint: &Endpoint,
    limits: &Limits,
) -> Result<Option<String>, Refusal> {
    let refuse = |error: NotReady| Refusal { phase: Phase::Backoff, reason: unreachable(&error) };
    ready::probe(&setup.client, endpoint, limits.probe).await.map_err(refuse)?;
    let version = ready::version(&setup.client, endpoint, limits.probe).await.map_err(refuse)?;
    let number = version.as_deref().and_then(parse_version);
    match (number, version) {
        (Some(number), Some(text)) if number < OLDEST => {
            let (major, minor, patch) = OLDEST;
            let reason = format!(
                "questdb at {} is version {text}, at least {major}.{minor}.{patch} is needed: \
                 upgrade it",
                endpoint.http
            );
            Err(Refusal { phase: Phase::Broken, reason })
        }
        (_, version) => Ok(version),
    }
}

/// Probes until the server counts as absent and returns why; `None` after a stop.
async fn until_absent(
    setup: &Setup,
    endpoint: &Endpoint,
    limits: &Limits,
    publisher: &Publisher,
    stop: &CancellationToken,
) -> Option<String> {
    let start = std::time::Instant::now();
    let mut state = Watch::Ready { failures: 0 };
    loop {
        if !rest(limits.probe_interval, stop).await {
            return None;
        }
        let probed = tokio::select! {
            () = stop.cancelled() => return None,
            probed = ready::probe(&setup.client, endpoint, limits.probe) => probed,
        };
        state = watch(state, probed.is_ok(), limits, start.elapsed());
        match (state, probed) {
            (Watch::Unhealthy { .. } | Watch::Hung, Err(error)) => {
                return Some(unreachable(&error));
            }
            (Watch::Ready { failures: 0 }, _) => publisher.phase(Phase::Ready, ""),
            (Watch::Ready { .. } | Watch::Unhealthy { .. } | Watch::Hung, _) => {}
        }
    }
}

fn unreachable(error: &NotReady) -> String {
    match error {
        NotReady::Http(error) => format!("{error}; start questdb there or mend questdb.http"),
        NotReady::Login { .. } | NotReady::Answer { .. } | NotReady::Url(_) => error.to_string(),
    }
}
