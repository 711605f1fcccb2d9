//! The dashboards as the viewer uses them: the model for the browser, and every query by its place.
//! SQL goes from here to the database, never from the browser.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::dashboards::panel::MAX_DATA_POINTS;
use super::expand::parse_interval;

/// Where a query stands in its dashboard.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A variable, by name.
    Variable(String),
    /// An annotation, by name.
    Annotation(String),
    /// A panel's query, by the panel's id and the query's `refId`.
    Panel(u64, String),
}

/// One query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// The SQL, with macros and variables.
    pub sql: String,
    /// Narrowest bucket, milliseconds.
    pub min_interval_ms: i64,
    /// Most points of a series.
    pub max_points: i64,
}

/// One dashboard.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its uid.
    pub uid: String,
    /// Its title.
    pub title: String,
    /// The model as JSON, without SQL.
    pub model: String,
    /// Names of its variables that have a query.
    pub variables: BTreeSet<String>,
    queries: BTreeMap<Place, Query>,
}

/// All dashboards.
#[derive(Debug, Clone)]
pub struct Catalog {
    entries: Vec<Entry>,
}

/// A dashboard file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("read dashboard {file}: {reason}")]
pub struct CatalogError {
    file: String,
    reason: String,
}

impl Catalog {
    /// Makes the catalog of `files`, pairs of name and text as [`super::dashboards::render`] gives
    /// them.
    ///
    /// # Errors
    /// A file is no dashboard.
    pub fn new(files: &[(String, String)]) -> Result<Self, CatalogError> {
        let read = |(file, text): &(String, String)| {
            let failed = |reason: String| CatalogError { file: file.clone(), reason };
            let model = serde_json::from_str(text).map_err(|error| failed(error.to_string()))?;
            entry(model).map_err(|missing| failed(format!("{missing} is missing")))
        };
        Ok(Self { entries: files.iter().map(read).collect::<Result<_, _>>()? })
    }

    /// Returns the dashboard with this uid.
    pub fn get(&self, uid: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.uid == uid)
    }

    /// Returns all dashboards, in the order of their files.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }
}

impl Entry {
    /// Returns the query at `place`.
    pub fn query(&self, place: &Place) -> Option<&Query> {
        self.queries.get(place)
    }

    /// Returns every query with its place; variables first, parents before children.
    pub fn queries(&self) -> impl Iterator<Item = (&Place, &Query)> {
        self.queries.iter()
    }
}

fn entry(mut model: Value) -> Result<Entry, &'static str> {
    let text = |key: &'static str, model: &Value| {
        model.get(key).and_then(Value::as_str).map(str::to_owned).ok_or(key)
    };
    let (uid, title) = (text("uid", &model)?, text("title", &model)?);
    let plain = |sql| Query { sql, min_interval_ms: 0, max_points: MAX_DATA_POINTS };
    let mut queries = BTreeMap::new();
    let mut variables = BTreeSet::new();
    for one in list(&mut model, "/templating/list") {
        let name = text("name", one)?;
        let Some(map) = one.as_object_mut() else { continue };
        map.remove("definition");
        // Other kinds of variables (the data source) have no SQL in `query`.
        if map.get("type").and_then(Value::as_str) == Some("query")
            && let Some(Value::String(sql)) = map.remove("query")
        {
            variables.insert(name.clone());
            queries.insert(Place::Variable(name), plain(sql));
        }
    }
    for one in list(&mut model, "/annotations/list") {
        let name = text("name", one)?;
        if let Some(sql) = take_sql(one.get_mut("target")) {
            queries.insert(Place::Annotation(name), plain(sql));
        }
    }
    for panel in list(&mut model, "/panels") {
        let id = panel.get("id").and_then(Value::as_u64).ok_or("id")?;
        let interval = panel.get("interval").and_then(Value::as_str).and_then(parse_interval);
        let points = panel.get("maxDataPoints").and_then(Value::as_i64);
        for target in list(panel, "/targets") {
            let ref_id = text("refId", target)?;
            if let Some(sql) = take_sql(Some(target)) {
                let (min_interval_ms, max_points) =
                    (interval.unwrap_or(0), points.unwrap_or(MAX_DATA_POINTS));
                let query = Query { sql, min_interval_ms, max_points };
                queries.insert(Place::Panel(id, ref_id), query);
            }
        }
    }
    Ok(Entry { uid, title, model: json!(model).to_string(), variables, queries })
}

fn list<'a>(model: &'a mut Value, pointer: &str) -> &'a mut [Value] {
    let list = model.pointer_mut(pointer).and_then(Value::as_array_mut);
    list.map(Vec::as_mut_slice).unwrap_or_default()
}

fn take_sql(target: Option<&mut Value>) -> Option<String> {
    match target?.as_object_mut()?.remove("rawSql") {
        Some(Value::String(sql)) => Some(sql),
        Some(_) | None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::dashboards;
    use super::*;

    fn catalog() -> Catalog {
        Catalog::new(&dashboards::render(&|_, _| None)).unwrap()
    }

    #[test]
    fn every_query_of_every_dashboard_is_found_by_its_place() {
        let catalog = catalog();
        assert_eq!(catalog.entries().len(), dashboards::all().len());
        for dashboard in dashboards::all() {
            let entry = catalog.get(&dashboards::uid(dashboard.name)).unwrap();
            for panel in dashboard.panels() {
                for (query, letter) in panel.queries.iter().zip(["A", "B", "C", "D"]) {
                    let place = Place::Panel(panel.id.into(), letter.to_owned());
                    let found = entry.query(&place).unwrap();
                    assert_eq!(found.sql, query.sql);
                    assert_eq!(found.max_points, panel.max_points);
                    assert!(found.min_interval_ms >= 1_000, "{}", panel.title);
                }
            }
            for variable in &dashboard.variables {
                let place = Place::Variable(variable.name.to_owned());
                assert_eq!(entry.query(&place).unwrap().sql, variable.sql);
                assert!(entry.variables.contains(variable.name));
            }
            for annotation in &dashboard.annotations {
                let place = Place::Annotation(annotation.name.to_owned());
                assert_eq!(entry.query(&place).unwrap().sql, annotation.sql);
            }
        }
    }

    #[test]
    fn places_that_do_not_exist_have_no_query() {
        let catalog = catalog();
        assert!(catalog.get("periscope-nothing").is_none());
        let health = catalog.get("periscope-health").unwrap();
        for place in [
            Place::Panel(1, "B".to_owned()),
            Place::Panel(999, "A".to_owned()),
            Place::Panel(100, "A".to_owned()),
            Place::Variable("datasource".to_owned()),
            Place::Annotation("Annotations & Alerts".to_owned()),
        ] {
            assert_eq!(health.query(&place), None, "{place:?}");
        }
    }

    #[test]
    fn the_model_for_the_browser_holds_no_sql() {
        for entry in catalog().entries() {
            for (_, query) in entry.queries() {
                let line = query.sql.lines().next().unwrap();
                assert!(!entry.model.contains(line), "{}: {line}", entry.uid);
            }
            assert!(entry.model.contains("\"panels\""));
        }
    }

    #[test]
    fn a_file_that_is_no_dashboard_is_named() {
        let file = |text: &str| vec![("x.json".to_owned(), text.to_owned())];
        for (text, word) in [("{", "EOF"), ("{}", "uid"), (r#"{"uid":"u"}"#, "title")] {
            let error = Catalog::new(&file(text)).unwrap_err().to_string();
            assert!(error.contains("x.json") && error.contains(word), "{error}");
        }
        let panel = r#"{"uid":"u","title":"t","panels":[{}]}"#;
        assert!(Catalog::new(&file(panel)).unwrap_err().to_string().contains("id"));
    }
}
