//! An existing Grafana: no child, only whether it answers, and what in it differs from what
//! periscope wants. Nothing is changed there.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::task::Setup;
use crate::grafana::api::{Api, ApiError, healthy_version};
use crate::grafana::provision::Settings;
use crate::grafana::provision::ledger::Ledger;
use crate::grafana::remote::desired::desired;
use crate::grafana::remote::plan::{Change, plan};
use crate::model::server::{Endpoint, Phase};
use crate::supervise::policy::{Limits, Watch, watch};
use crate::supervise::publisher::Publisher;
use crate::supervise::task::rest;

/// Pause between two looks at a Grafana that does not answer.
const PAUSE: Duration = Duration::from_secs(5);

/// Between two looks at what is in it.
const CHECK_INTERVAL: Duration = Duration::from_secs(300);

/// Time limit of one request of such a look.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);

/// Watches it until `stop`.
pub(super) async fn run(
    setup: &Setup,
    limits: &Limits,
    publisher: &Publisher,
    stop: &CancellationToken,
) {
    let url = setup.config.grafana.url.clone().unwrap_or_default();
    let api = match Api::new(setup.client.clone(), &url, None, limits.probe) {
        Ok(api) => api,
        Err(error) => {
            publisher.phase(Phase::Broken, &error.to_string());
            stop.cancelled().await;
            return;
        }
    };
    publisher.change(|state| state.endpoint = Some(endpoint(&url)));
    publisher.phase(Phase::Starting, &format!("connecting to {url}"));
    let start = Instant::now();
    let mut check = Check::default();
    // The first answer decides; after it a single failure is none yet.
    let mut state = Watch::Unhealthy { since: Duration::ZERO };
    while !stop.is_cancelled() {
        let probed = tokio::select! {
            () = stop.cancelled() => break,
            probed = version(&api) => probed,
        };
        state = watch(state, probed.is_ok(), limits, start.elapsed());
        let pause = match (state, probed) {
            (_, Ok(version)) => {
                publisher.change(|state| state.version = Some(version));
                check.look(setup).await;
                publisher.phase(Phase::Ready, &check.shortcoming);
                limits.probe_interval
            }
            (Watch::Ready { .. }, Err(_)) => limits.probe_interval,
            (Watch::Unhealthy { .. } | Watch::Hung, Err(error)) => {
                publisher.phase(Phase::Backoff, &error);
                PAUSE.min(limits.blocked_pause)
            }
        };
        if !rest(pause, stop).await {
            break;
        }
    }
    publisher.phase(Phase::Absent, "");
}

/// What differs there from what is wanted, looked at now and then. Nothing is changed.
#[derive(Debug, Default)]
struct Check {
    looked: Option<Instant>,
    /// What is told of it; empty when all is as it should be.
    shortcoming: String,
}

impl Check {
    /// Looks again if it is time to.
    async fn look(&mut self, setup: &Setup) {
        let questdb = setup.questdb.borrow().endpoint.clone();
        let is_due = self.looked.is_none_or(|at| at.elapsed() >= CHECK_INTERVAL);
        if let Some(questdb) = questdb.filter(|_| is_due) {
            self.looked = Some(Instant::now());
            self.shortcoming = differences(setup, questdb).await;
        }
    }
}

/// Returns what to say of a Grafana that answers; empty when all is as it should be.
async fn differences(setup: &Setup, questdb: Endpoint) -> String {
    let config = &setup.config;
    let url = config.grafana.url.clone().unwrap_or_default();
    if config.grafana.login.is_none() {
        return "what is in it cannot be looked at: set grafana.token".to_owned();
    }
    let login = config.grafana.login.as_ref();
    let asked = async {
        let api = Api::new(setup.client.clone(), &url, login, REQUEST_LIMIT)?;
        let settings = Settings::for_api(config, setup.listener, questdb);
        let ledger = Ledger::load(&Ledger::remote_path(&config.data_dir)).unwrap_or_default();
        plan(&api, &desired(&settings, &setup.rules), &ledger).await
    };
    match asked.await {
        Ok(steps) => match steps.iter().filter(|step| step.change != Change::Same).count() {
            0 => String::new(),
            count => format!(
                "{count} things in it differ from what periscope wants: see `periscope grafana \
                 diff`, then `periscope grafana apply`"
            ),
        },
        Err(error) => format!("what is in it cannot be looked at: {error}"),
    }
}

async fn version(api: &Api) -> Result<String, String> {
    let answer = api.get("/api/health").await.map_err(|error: ApiError| error.to_string())?;
    healthy_version(&answer).ok_or_else(|| {
        format!("{} answers, but its database does not work: see its log", api.base())
    })
}

/// Returns where a Grafana is, in the words that all servers share.
pub(super) fn endpoint(url: &str) -> Endpoint {
    Endpoint {
        http: url.trim_end_matches('/').to_owned(),
        pg: String::new(),
        database: String::new(),
        admin: None,
        reader: None,
    }
}
