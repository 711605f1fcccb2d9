//! Units, colours and states: what numbers look like.

/// Warning colour of thresholds and mappings.
pub const YELLOW: &str = "yellow";
/// Between warning and critical.
pub const ORANGE: &str = "orange";
/// Critical.
pub const RED: &str = "red";
/// Healthy.
pub const GREEN: &str = "green";
/// Neither good nor bad.
pub const BLUE: &str = "blue";
/// Unknown or off.
pub const GREY: &str = "#808080";

/// Unit of a panel's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// A plain count, shortened (1.2 K).
    Count,
    /// A plain number with thousands separators: amounts of a currency that the series names.
    Amount,
    /// States and texts.
    None,
    /// Binary bytes.
    Bytes,
    /// 0 to 100.
    Percent,
    /// 0 to 1.
    Share,
    /// Milliseconds.
    Milliseconds,
    /// Seconds, shown as a duration.
    Seconds,
    /// Per minute.
    PerMinute,
    /// Rows per second.
    PerSecond,
}

impl Unit {
    /// Grafana's id of the unit.
    pub const fn id(self) -> &'static str {
        match self {
            Self::Count => "short",
            Self::Amount => "locale",
            Self::None => "none",
            Self::Bytes => "bytes",
            Self::Percent => "percent",
            Self::Share => "percentunit",
            Self::Milliseconds => "ms",
            Self::Seconds => "s",
            Self::PerMinute => "cpm",
            Self::PerSecond => "wps",
        }
    }
}

/// Where a colour begins.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum At {
    /// A number of this panel alone.
    Value(f64),
    /// The threshold of an alert rule; the step is left out if the rule has none.
    Rule(&'static str, Severity),
    /// How long an alert rule waits before it fires, seconds; asked for as `RULE.for`, and the number
    /// of the shipped rule if nobody knows better.
    Hold(&'static str, Severity, f64),
}

/// Severity of a rule's threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Look at it today.
    Warning,
    /// Look at it now.
    Critical,
}

impl Severity {
    /// The word that rules use.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// Colours of a panel's values.
#[derive(Debug, Clone, PartialEq)]
pub struct Scale {
    /// Colour below the first step.
    pub base: &'static str,
    /// Colours from a value on, ascending.
    pub steps: Vec<(At, &'static str)>,
}

impl Scale {
    /// Green, yellow and red at the thresholds of `rule`, which fires above them.
    pub fn rule(rule: &'static str) -> Self {
        Self {
            base: GREEN,
            steps: vec![
                (At::Rule(rule, Severity::Warning), YELLOW),
                (At::Rule(rule, Severity::Critical), RED),
            ],
        }
    }

    /// Red, yellow and green at the thresholds of `rule`, which fires below them.
    pub fn rule_below(rule: &'static str) -> Self {
        Self {
            base: RED,
            steps: vec![
                (At::Rule(rule, Severity::Critical), YELLOW),
                (At::Rule(rule, Severity::Warning), GREEN),
            ],
        }
    }

    /// One colour for all values.
    pub const fn plain(base: &'static str) -> Self {
        Self { base, steps: Vec::new() }
    }
}

/// A number that stands for a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// The number, as text.
    pub value: &'static str,
    /// What is shown instead.
    pub text: &'static str,
    /// Its colour.
    pub color: &'static str,
}

/// Returns a [`State`].
pub const fn state(value: &'static str, text: &'static str, color: &'static str) -> State {
    State { value, text, color }
}

/// Settings of one column of a table, or of one series by its name.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    /// Name of the column.
    pub name: &'static str,
    /// Unit, where it differs from the panel's.
    pub unit: Option<Unit>,
    /// Colours of the cells.
    pub scale: Option<Scale>,
    /// States instead of numbers or texts.
    pub states: Vec<State>,
    /// Width, pixels.
    pub width: Option<u32>,
}

impl Column {
    /// A column with a unit.
    pub const fn unit(name: &'static str, unit: Unit) -> Self {
        Self { name, unit: Some(unit), scale: None, states: Vec::new(), width: None }
    }

    /// A column with a width.
    pub const fn width(name: &'static str, width: u32) -> Self {
        Self { name, unit: None, scale: None, states: Vec::new(), width: Some(width) }
    }

    /// A column that shows states.
    pub fn states(name: &'static str, states: &[State]) -> Self {
        let unit = Some(Unit::None);
        Self { name, unit, scale: None, states: states.to_vec(), width: None }
    }

    /// Colours the cells.
    #[must_use]
    pub fn scale(mut self, scale: Scale) -> Self {
        self.scale = Some(scale);
        self
    }
}
