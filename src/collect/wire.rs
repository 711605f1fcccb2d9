//! The document of the Python shim: one process, any number of instances of the target classes. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::json::Document;
use super::text;
use crate::model::observation::{Failure, FailureReason};

/// Most instances of one process that become daemons of their own.
const MAX_INSTANCES: usize = 16;

/// What the shim answered.
#[derive(Debug, PartialEq)]
pub(super) struct Answer {
    /// See [`crate::model::observation::Observation::event_loop_lag_ms`].
    pub(super) event_loop_lag_ms: Option<f64>,
    /// The instances, in the order of their birth.
    pub(super) instances: Vec<Instance>,
}

/// One object of a target class.
#[derive(Debug, PartialEq)]
pub(super) struct Instance {
    /// Stays the same while the object lives.
    pub(super) id: String,
    /// Name of its class.
    pub(super) class: String,
    /// Its status document, or what its status method raised.
    pub(super) status: Result<Value, Failure>,
}

/// Takes the shim's document apart; `None` when it is none.
pub(super) fn answer(document: Value) -> Option<Answer> {
    let Value::Object(mut fields) = document else { return None };
    let event_loop_lag_ms = match fields.get("event_loop_lag_ms").and_then(Value::as_f64) {
        // Blocked: the shim says for how long so far, an older one only that it is over a second.
        Some(lag) if lag < 0.0 => {
            fields.get("event_loop_blocked_ms").and_then(Value::as_f64).or(Some(1000.0))
        }
        lag => lag,
    };
    let Some(Value::Array(instances)) = fields.remove("instances") else { return None };
    let instances = instances.into_iter().take(MAX_INSTANCES).filter_map(instance).collect();
    Some(Answer { event_loop_lag_ms, instances })
}

/// Takes the document of a shim that was asked over TCP apart, like any other daemon that answers HTTP:
/// its first instance and the lag of its event loop. Every other document stays as it is.
pub(super) fn opened(
    document: Result<Document, Failure>,
) -> (Result<Document, Failure>, Option<f64>) {
    let is_shims = |value: &Value| {
        value.get("shim").is_some_and(Value::is_string)
            && value.get("instances").is_some_and(Value::is_array)
    };
    let (value, mut oddities) = match document {
        Ok(Document { value, oddities }) if is_shims(&value) => (value, oddities),
        other => return (other, None),
    };
    let Some(Answer { event_loop_lag_ms, instances }) = answer(value) else {
        let words = "the document of the shim is not what it should be";
        return (Err(Failure::new(FailureReason::BadDocument, words)), None);
    };
    if instances.len() > 1 {
        oddities.push(format!("{} more instances", instances.len() - 1));
    }
    let status = match instances.into_iter().next() {
        Some(first) => first.status.map(|value| Document { value, oddities }),
        None => Err(no_instance()),
    };
    (status, event_loop_lag_ms)
}

/// The failure of a process that has no instance to ask.
pub(super) fn no_instance() -> Failure {
    let words = "the process runs, but has no object of the target class (any more)";
    Failure::new(FailureReason::NoInstance, words)
}

fn instance(value: Value) -> Option<Instance> {
    let Value::Object(mut fields) = value else { return None };
    let text_of = |name: &str| fields.get(name).and_then(Value::as_str).map(str::to_owned);
    let (id, class) = (text_of("id")?, text_of("class")?);
    let status = match (text_of("error"), fields.remove("status")) {
        (None, Some(status)) => Ok(status),
        (Some(error), _) => {
            Err(Failure::new(FailureReason::StatusError, &*text::clean(&error, text::ERROR_BYTES)))
        }
        (None, None) => Err(Failure::new(
            FailureReason::BadDocument,
            "the instance has neither status nor error",
        )),
    };
    Some(Instance { id, class, status })
}

/// Names of a process's instances: the first is called like the daemon, further ones `NAME/Class`,
/// `NAME/Class-2`, … An instance keeps its name while it lives; a new one takes the first free name,
/// so that a daemon which makes its runner anew keeps one series.
#[derive(Debug, Default)]
pub(super) struct Names {
    by_id: BTreeMap<String, Arc<str>>,
}

impl Names {
    /// Returns a name for each of `instances` and forgets those that are gone.
    pub(super) fn assign(&mut self, daemon: &Arc<str>, instances: &[Instance]) -> Vec<Arc<str>> {
        self.by_id.retain(|id, _| instances.iter().any(|instance| instance.id == *id));
        let mut names = Vec::with_capacity(instances.len());
        for instance in instances {
            let name = match self.by_id.get(&instance.id) {
                Some(name) => Arc::clone(name),
                None => self.free(daemon, &instance.class),
            };
            self.by_id.insert(instance.id.clone(), Arc::clone(&name));
            names.push(name);
        }
        names
    }

    fn free(&self, daemon: &Arc<str>, class: &str) -> Arc<str> {
        let taken = |name: &str| self.by_id.values().any(|known| **known == *name);
        if !taken(daemon) {
            return Arc::clone(daemon);
        }
        let first = format!("{daemon}/{}", text::clean(class, text::TAG_BYTES));
        if !taken(&first) {
            return first.into();
        }
        let mut number = 2_u32;
        loop {
            let name = format!("{first}-{number}");
            if !taken(&name) {
                return name.into();
            }
            number += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn with_ids(ids: &[&str]) -> Vec<Instance> {
        let instance = |id: &&str| Instance {
            id: (*id).to_owned(),
            class: "Runner".to_owned(),
            status: Ok(Value::Null),
        };
        ids.iter().map(instance).collect()
    }

    #[test]
    fn the_shims_document() {
        let document = json!({"schema":1,"shim":"1","name":"ccxt","pid":5,"event_loop_lag_ms":1.9,"threads":4,
        "instances":[
            {"module":"m","class":"A","method":"get_status","id":"7f","call_ms":0.1,"status":{"running":true}},
            {"class":"B","id":"80","error":"KeyError:\n'x'"},
            {"class":"C","id":"81"}, {"class":"D"}, 5,
        ]});
        let answer = answer(document).unwrap();
        assert_eq!(answer.event_loop_lag_ms, Some(1.9));
        assert_eq!(answer.instances.len(), 3);
        assert_eq!(answer.instances[0].status, Ok(json!({"running": true})));
        let failure = answer.instances[1].status.as_ref().unwrap_err();
        assert_eq!(failure.to_string(), "status_error: KeyError: 'x'");
        let failure = answer.instances[2].status.as_ref().unwrap_err();
        assert_eq!(failure.reason, FailureReason::BadDocument);
    }

    #[test]
    fn a_blocked_loop_has_a_lower_bound() {
        let lag = |fields: Value| answer(fields).unwrap().event_loop_lag_ms;
        assert_eq!(lag(json!({"instances": [], "event_loop_lag_ms": -1})), Some(1000.0));
        let longer =
            json!({"instances": [], "event_loop_lag_ms": -1, "event_loop_blocked_ms": 2300.5});
        assert_eq!(lag(longer), Some(2300.5));
        assert_eq!(lag(json!({"instances": [], "event_loop_lag_ms": null})), None);
        assert_eq!(answer(json!({"running": true})), None);
        assert_eq!(answer(json!([])), None);
    }

    #[test]
    fn instances_keep_their_names_and_a_new_one_takes_the_first_free() {
        let mut names = Names::default();
        let daemon: Arc<str> = "ccxt".into();
        let mut assign = |ids: &[&str]| -> Vec<String> {
            names.assign(&daemon, &with_ids(ids)).iter().map(ToString::to_string).collect()
        };
        assert_eq!(assign(&["a"]), ["ccxt"]);
        assert_eq!(assign(&["a", "b", "c"]), ["ccxt", "ccxt/Runner", "ccxt/Runner-2"]);
        assert_eq!(assign(&["b", "c"]), ["ccxt/Runner", "ccxt/Runner-2"]);
        assert_eq!(assign(&["b", "c", "d"]), ["ccxt/Runner", "ccxt/Runner-2", "ccxt"]);
        assert_eq!(assign(&["e"]), ["ccxt"]);
    }
}
