//! Carries out the steps of a plan. Each is noted in the ledger before it is made, so that a crash
//! leaves nothing in Grafana that nobody owns.

use std::io;
use std::path::Path;

use hyper::Method;
use serde_json::Value;

use super::desired::{Object, RULES};
use super::plan::{Change, Step, grafted, percent};
use crate::grafana::api::{Api, ApiError};
use crate::grafana::provision::ledger::{Kind, Ledger};

/// Why a step was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Grafana refuses or does not answer.
    #[error("{what} {title}: {source}")]
    Api {
        /// Kind of the object.
        what: &'static str,
        /// Its name.
        title: String,
        /// Why.
        source: ApiError,
    },
    /// The ledger cannot be written.
    #[error("keep the ledger: {0}")]
    Ledger(#[from] io::Error),
}

/// Makes and changes what `steps` say of `desired`; removes nothing.
///
/// # Errors
/// See [`ApplyError`]; what came before is done, and doing all again is harmless.
pub async fn apply(
    api: &Api,
    desired: &[Object],
    steps: &[Step],
    ledger: &mut Ledger,
    path: &Path,
) -> Result<usize, ApplyError> {
    let mut done = 0_usize;
    for step in steps {
        let is_new = match &step.change {
            Change::Create => true,
            Change::Update(_) => false,
            Change::Same | Change::Foreign(_) | Change::Remove => continue,
        };
        let wanted = |object: &&Object| object.kind == step.kind && object.uid == step.uid;
        let Some(object) = desired.iter().find(wanted) else { continue };
        for uid in &object.owned {
            ledger.add(object.kind, uid);
        }
        ledger.save(path)?;
        make(api, object, is_new).await.map_err(|source| failed(step, source))?;
        if !object.secrets.is_empty() {
            ledger.set_secrets(&object.uid, &object.secrets);
            ledger.save(path)?;
        }
        done = done.saturating_add(1);
    }
    Ok(done)
}

/// Removes the leftovers that `steps` name.
///
/// # Errors
/// See [`ApplyError`]; what came before is done, and doing all again is harmless.
pub async fn prune(
    api: &Api,
    steps: &[Step],
    ledger: &mut Ledger,
    path: &Path,
) -> Result<usize, ApplyError> {
    let mut done = 0_usize;
    for step in steps.iter().filter(|step| step.change == Change::Remove) {
        match remove(api, step.kind, &step.uid).await {
            Ok(()) => {}
            // Somebody has removed it already.
            Err(error) if error.is_missing() => {}
            Err(source) => return Err(failed(step, source)),
        }
        ledger.remove(step.kind, &step.uid);
        ledger.save(path)?;
        done = done.saturating_add(1);
    }
    Ok(done)
}

fn failed(step: &Step, source: ApiError) -> ApplyError {
    ApplyError::Api { what: step.kind.words(), title: step.title.clone(), source }
}

async fn make(api: &Api, object: &Object, is_new: bool) -> Result<(), ApiError> {
    let uid = &object.uid;
    let (method, path) = match (object.kind, is_new) {
        (Kind::Folder, true) => (Method::POST, "/api/folders".to_owned()),
        (Kind::Folder, false) => {
            let mut body = object.body.clone();
            if let Some(fields) = body.as_object_mut() {
                // Without the number of the version that it replaces.
                fields.insert("overwrite".into(), true.into());
            }
            return sent(api, Method::PUT, &format!("/api/folders/{uid}"), &body).await;
        }
        (Kind::Datasource, true) => (Method::POST, "/api/datasources".to_owned()),
        (Kind::Datasource, false) => (Method::PUT, format!("/api/datasources/uid/{uid}")),
        (Kind::Dashboard, _) => (Method::POST, "/api/dashboards/db".to_owned()),
        (Kind::ContactPoint, true) => {
            (Method::POST, "/api/v1/provisioning/contact-points".to_owned())
        }
        (Kind::ContactPoint, false) => {
            (Method::PUT, format!("/api/v1/provisioning/contact-points/{uid}"))
        }
        (Kind::Policies, _) => return graft(api, Some(&object.body)).await,
        (Kind::Rule, _) => {
            let group = percent(uid);
            (Method::PUT, format!("/api/v1/provisioning/folder/{RULES}/rule-groups/{group}"))
        }
    };
    sent(api, method, &path, &object.body).await
}

async fn remove(api: &Api, kind: Kind, uid: &str) -> Result<(), ApiError> {
    let path = match kind {
        Kind::Folder => format!("/api/folders/{uid}"),
        Kind::Datasource => format!("/api/datasources/uid/{uid}"),
        Kind::Dashboard => format!("/api/dashboards/uid/{uid}"),
        Kind::ContactPoint => format!("/api/v1/provisioning/contact-points/{uid}"),
        Kind::Policies => return graft(api, None).await,
        Kind::Rule => format!("/api/v1/provisioning/alert-rules/{uid}"),
    };
    api.send(Method::DELETE, &path, None).await.map(|_| ())
}

/// Puts our branch into the tree of policies, or takes it out.
async fn graft(api: &Api, route: Option<&Value>) -> Result<(), ApiError> {
    const PATH: &str = "/api/v1/provisioning/policies";
    let tree = api.get(PATH).await?;
    sent(api, Method::PUT, PATH, &grafted(&tree, route)).await
}

async fn sent(api: &Api, method: Method, path: &str, body: &Value) -> Result<(), ApiError> {
    api.send(method, path, Some(body)).await.map(|_| ())
}
