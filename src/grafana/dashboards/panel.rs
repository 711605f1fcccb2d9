//! What a panel is, before it becomes JSON: the declarations of the dashboards are values of these
//! types.

use super::style::{Column, GREEN, Scale, State, Unit};

/// Most points of a line. Every bucket is worked out for every series first, whatever is summed up
/// after that: over 90 days 1,000 points cost up to 280 ms, 500 below 200 ms, and a panel of half a
/// screen has no room for more.
pub const MAX_DATA_POINTS: i64 = 500;
/// Most points of a line whose query works out a counter's growth for every pipeline of every symbol:
/// hundreds of series, of which a few are drawn. 500 points cost up to 310 ms over 90 days.
pub const MANY_SERIES_POINTS: i64 = 200;

/// How a panel draws.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Lines over time.
    TimeSeries,
    /// One coloured number for every series: the last one.
    Stat,
    /// One lane of states for every series.
    StateTimeline,
    /// One horizontal bar for every series: the last value.
    BarGauge,
    /// Rows.
    Table,
}

impl Kind {
    /// Grafana's id of the panel plugin.
    pub const fn id(self) -> &'static str {
        match self {
            Self::TimeSeries => "timeseries",
            Self::Stat => "stat",
            Self::StateTimeline => "state-timeline",
            Self::BarGauge => "bargauge",
            Self::Table => "table",
        }
    }
}

/// Shape that a query's result has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A column `time`, ordered; text columns are labels; numbers are values.
    TimeSeries,
    /// Rows.
    Table,
}

/// One query of a panel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// The SQL, with Grafana's macros and variables.
    pub sql: String,
    /// The shape of its result.
    pub format: Format,
}

/// What a panel says about itself: the description under its title.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct About {
    /// What is shown.
    pub what: &'static str,
    /// What is normal.
    pub healthy: &'static str,
    /// What to do when it is not.
    pub act: &'static str,
}

/// One panel.
#[derive(Debug, Clone, PartialEq)]
pub struct Panel {
    /// Unique in its dashboard; never given to another panel, since links hold it.
    pub id: u32,
    /// Name that alert rules call it by, unique in its dashboard.
    pub key: &'static str,
    /// Title, unique in its dashboard.
    pub title: &'static str,
    /// Description.
    pub about: About,
    /// How it draws.
    pub kind: Kind,
    /// Unit of its values.
    pub unit: Unit,
    /// Width (of 24) and height, in grid units.
    pub size: (u32, u32),
    /// Queries; their refIds are A, B, …
    pub queries: Vec<Query>,
    /// Name of a series, with `${__field.labels.x}`.
    pub series_name: Option<&'static str>,
    /// Colours.
    pub scale: Scale,
    /// States instead of numbers.
    pub states: Vec<State>,
    /// Columns with settings of their own.
    pub columns: Vec<Column>,
    /// Digits after the point.
    pub decimals: Option<u32>,
    /// Smallest and largest value of the axis.
    pub range: (Option<f64>, Option<f64>),
    /// Smallest bucket; the polls are this far apart at most.
    pub min_interval: &'static str,
    /// Most points of a line.
    pub max_points: i64,
    /// Text instead of an empty panel.
    pub no_value: &'static str,
    /// Ids of the alert rules that this panel explains.
    pub rules: &'static [&'static str],
}

impl Panel {
    /// A panel of usual size, without colours.
    pub const fn new(
        id: u32,
        key: &'static str,
        kind: Kind,
        title: &'static str,
        unit: Unit,
        about: About,
        query: Vec<Query>,
    ) -> Self {
        let size = match kind {
            Kind::TimeSeries | Kind::StateTimeline | Kind::BarGauge => (12, 8),
            Kind::Stat => (6, 4),
            Kind::Table => (24, 8),
        };
        Self {
            id,
            key,
            title,
            about,
            kind,
            unit,
            size,
            queries: query,
            series_name: None,
            scale: Scale::plain(GREEN),
            states: Vec::new(),
            columns: Vec::new(),
            decimals: None,
            range: (None, None),
            min_interval: "15s",
            max_points: MAX_DATA_POINTS,
            no_value: "no data",
            rules: &[],
        }
    }

    /// Sets width (of 24) and height.
    #[must_use]
    pub const fn size(mut self, width: u32, height: u32) -> Self {
        self.size = (width, height);
        self
    }

    /// Names the series.
    #[must_use]
    pub const fn named(mut self, name: &'static str) -> Self {
        self.series_name = Some(name);
        self
    }

    /// Sets the colours.
    #[must_use]
    pub fn scale(mut self, scale: Scale) -> Self {
        self.scale = scale;
        self
    }

    /// Shows states instead of numbers.
    #[must_use]
    pub fn states(mut self, states: &[State]) -> Self {
        self.states = states.to_vec();
        self
    }

    /// Adds a column with settings of its own.
    #[must_use]
    pub fn column(mut self, column: Column) -> Self {
        self.columns.push(column);
        self
    }

    /// Fixes the axis.
    #[must_use]
    pub const fn range(mut self, low: Option<f64>, high: Option<f64>) -> Self {
        self.range = (low, high);
        self
    }

    /// Sets the digits after the point.
    #[must_use]
    pub const fn decimals(mut self, digits: u32) -> Self {
        self.decimals = Some(digits);
        self
    }

    /// Sets the smallest bucket.
    #[must_use]
    pub const fn every(mut self, interval: &'static str) -> Self {
        self.min_interval = interval;
        self
    }

    /// Draws lines with fewer points than usual.
    #[must_use]
    pub const fn points(mut self, most: i64) -> Self {
        self.max_points = most;
        self
    }

    /// Sets the text of an empty panel.
    #[must_use]
    pub const fn empty(mut self, text: &'static str) -> Self {
        self.no_value = text;
        self
    }

    /// Names the alert rules that this panel explains.
    #[must_use]
    pub const fn explains(mut self, rules: &'static [&'static str]) -> Self {
        self.rules = rules;
        self
    }
}

/// A headed group of panels.
#[derive(Debug, Clone, PartialEq)]
pub struct Section {
    /// Id of the heading, unique among the panels.
    pub id: u32,
    /// Heading.
    pub title: &'static str,
    /// Panels, placed from left to right and wrapped at 24 columns.
    pub panels: Vec<Panel>,
}

/// A variable with values out of the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    /// Name in `${name}`.
    pub name: &'static str,
    /// Label before the list.
    pub label: &'static str,
    /// One column of text.
    pub sql: String,
}

/// Marks on every time axis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Annotation {
    /// Name beside its switch.
    pub name: &'static str,
    /// Colour of the marks.
    pub color: &'static str,
    /// Columns `time`, `text`, `tags`, and `timeend` for a span.
    pub sql: String,
}

/// One dashboard.
#[derive(Debug, Clone, PartialEq)]
pub struct Dashboard {
    /// Name of the file without `.json`; the uid is `periscope-NAME`.
    pub name: &'static str,
    /// Title.
    pub title: &'static str,
    /// Description.
    pub description: &'static str,
    /// Time between refreshes.
    pub refresh: &'static str,
    /// Range at first: `now-` this.
    pub since: &'static str,
    /// Variables, parents first.
    pub variables: Vec<Variable>,
    /// Marks.
    pub annotations: Vec<Annotation>,
    /// Panels.
    pub sections: Vec<Section>,
}

impl Dashboard {
    /// Returns all panels in order.
    pub fn panels(&self) -> impl Iterator<Item = &Panel> {
        self.sections.iter().flat_map(|section| section.panels.iter())
    }
}
