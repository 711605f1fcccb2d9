//! Whether what a Grafana has is what is wanted. It adds fields, hides secrets and writes durations
//! in its own way; none of that is a difference. Pure.

use serde_json::Value;

/// What Grafana shows instead of a secret.
const REDACTED: &str = "[REDACTED]";

/// Returns the paths at which `found` is not what is wanted; at most a few are worth telling.
pub fn differences(wanted: &Value, found: &Value) -> Vec<String> {
    let mut paths = Vec::new();
    walk("", wanted, found, &mut paths);
    paths
}

fn walk(path: &str, wanted: &Value, found: &Value, paths: &mut Vec<String>) {
    match (wanted, found) {
        (Value::Object(wanted), Value::Object(found)) => {
            for (key, value) in wanted {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                match found.get(key) {
                    Some(other) => walk(&path, value, other, paths),
                    // What is empty is often left out.
                    None if is_empty(value) => {}
                    None => paths.push(path),
                }
            }
        }
        (Value::Array(wanted), Value::Array(found)) if wanted.len() == found.len() => {
            for (index, (value, other)) in wanted.iter().zip(found).enumerate() {
                walk(&format!("{path}[{index}]"), value, other, paths);
            }
        }
        (wanted, found) if same(wanted, found) => {}
        _ => paths.push(path.to_owned()),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty() || seconds(text) == Some(0),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

fn same(wanted: &Value, found: &Value) -> bool {
    match (wanted, found) {
        (Value::String(_), Value::String(found)) if found == REDACTED => true,
        (Value::String(wanted), Value::String(found)) => {
            wanted == found || seconds(wanted).is_some_and(|w| seconds(found) == Some(w))
        }
        (Value::Number(wanted), Value::Number(found)) => wanted.as_f64() == found.as_f64(),
        _ => wanted == found || is_empty(wanted) && is_empty(found),
    }
}

/// Returns the seconds of `1m30s`, `120s`, `4h`, `2m0s`; `None` for anything else.
fn seconds(text: &str) -> Option<u64> {
    let mut total: u64 = 0;
    let mut number: Option<u64> = None;
    for c in text.chars() {
        if let Some(digit) = c.to_digit(10) {
            let before = number.unwrap_or(0);
            number = Some(before.checked_mul(10)?.checked_add(u64::from(digit))?);
            continue;
        }
        let unit = match c {
            's' => 1,
            'm' => 60,
            'h' => 3_600,
            'd' => 86_400,
            _ => return None,
        };
        total = total.checked_add(number.take()?.checked_mul(unit)?)?;
    }
    (number.is_none() && !text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_grafana_adds_hides_or_rewrites_is_no_difference() {
        let wanted = json!({
            "for": "120s", "keep": "0s", "n": 1, "secret": "hush", "list": [{"a": 1.0}], "off": false
        });
        let found = json!({
            "for": "2m", "n": 1.0, "secret": "[REDACTED]", "list": [{"a": 1, "b": 2}], "id": 7
        });
        assert_eq!(differences(&wanted, &found), [""; 0]);
    }

    #[test]
    fn differences_are_named_by_their_place() {
        let wanted = json!({"a": {"b": "x"}, "list": [1, 2], "gone": "y", "for": "1m"});
        let found = json!({"a": {"b": "z"}, "list": [1], "for": "90s"});
        assert_eq!(differences(&wanted, &found), ["a.b", "for", "gone", "list"]);
    }

    #[test]
    fn durations_are_read_as_grafana_writes_them() {
        for (text, expected) in
            [("2m0s", Some(120)), ("4h", Some(14_400)), ("1d", Some(86_400)), ("0s", Some(0))]
        {
            assert_eq!(seconds(text), expected, "{text}");
        }
        for text in ["", "5", "m", "5x", "alerts"] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }
}
