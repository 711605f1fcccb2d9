//! Trading: what do the strategies earn, hold and risk?

use super::marks;
use super::panel::{About, Dashboard, Kind, Panel, Section};
use super::sql::{DAEMONS, Source, TRADING, Value, table, value};
use super::style::{At, BLUE, Column, GREEN, RED, Scale, Unit};

const SOURCE: Source = TRADING;
/// Amounts of different currencies are never added.
const BY_STRATEGY: &str = "strategy, currency, daemon, env";
const STRATEGY: &str = "${__field.labels.strategy} ${__field.labels.currency}";
const BY_SYMBOL: &str = "symbol, currency, env";
const SYMBOL: &str = "${__field.labels.symbol} ${__field.labels.currency}";

// Rows without a value are left out: a node's account, which has no results of its own, would be a
// series without a value in every panel.
const PNL: Value = value("pnl", "last_not_null(pnl)", "last_not_null(pnl)");
const UNREALIZED: Value =
    value("unrealized", "last_not_null(unrealized_pnl)", "last_not_null(unrealized_pnl)");
const EXPOSURE: Value = value("exposure", "last_not_null(exposure)", "last_not_null(exposure)");
const OPEN: Value = value("orders", "last_not_null(orders_open)", "last_not_null(orders_open)");
const DRAWDOWN: Value = value("drawdown", "max(drawdown)", "max(drawdown)");
const EQUITY: Value = value("equity", "last_not_null(equity)", "last_not_null(equity)");

/// Returns the dashboard.
pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        name: "trading",
        title: "Trading performance",
        description: "What do the strategies earn, hold and risk?",
        refresh: "5s",
        since: "6h",
        variables: vec![
            SOURCE.variable("env", "Environment"),
            SOURCE.variable("host", "Host"),
            SOURCE.variable("daemon", "Daemon"),
            SOURCE.variable("strategy", "Strategy"),
            SOURCE.variable("symbol", "Symbol"),
        ],
        annotations: vec![marks::restarts(DAEMONS), marks::alerts()],
        sections: vec![
            Section { id: 100, title: "Profit and loss", panels: profit() },
            Section { id: 101, title: "Orders", panels: orders() },
            Section { id: 102, title: "Risk", panels: risk() },
        ],
    }
}

/// Red for a loss, green for a gain.
fn gain() -> Scale {
    Scale { base: RED, steps: vec![(At::Value(0.0), GREEN)] }
}

fn profit() -> Vec<Panel> {
    vec![
        Panel::new(
            1,
            "pnl_now",
            Kind::Stat,
            "Realised PnL now",
            Unit::Amount,
            About {
                what: "Realised profit and loss of each strategy at the end of the range, in the \
                       currency beside its name.",
                healthy: "What you expect of the strategy.",
                act: "A sudden fall: see Orders and Exposure for what was closed.",
            },
            vec![SOURCE.newest(BY_STRATEGY, "sum(pnl)", PNL, "pnl IS NOT NULL")],
        )
        .size(12, 5)
        .named(STRATEGY)
        .scale(gain())
        .decimals(2)
        .empty("no daemon reports trading"),
        Panel::new(
            2,
            "unrealized_now",
            Kind::Stat,
            "Unrealised PnL now",
            Unit::Amount,
            About {
                what: "Profit and loss of open positions at the end of the range.",
                healthy: "Small against equity.",
                act: "A large loss: look at Exposure and decide whether to close.",
            },
            vec![SOURCE.newest(
                BY_STRATEGY,
                "sum(unrealized)",
                UNREALIZED,
                "unrealized_pnl IS NOT NULL",
            )],
        )
        .size(12, 5)
        .named(STRATEGY)
        .scale(gain())
        .decimals(2)
        .empty("no daemon reports trading"),
        Panel::new(
            3,
            "pnl",
            Kind::TimeSeries,
            "Realised PnL",
            Unit::Amount,
            About {
                what: "Realised profit and loss over time, by strategy.",
                healthy: "Rises over the time scale of the strategy.",
                act: "Steps down are closed losses: find them among the orders.",
            },
            vec![SOURCE.lines(BY_STRATEGY, "sum(pnl)", PNL, "pnl IS NOT NULL")],
        )
        .named(STRATEGY)
        .decimals(2),
        Panel::new(
            4,
            "unrealized",
            Kind::TimeSeries,
            "Unrealised PnL",
            Unit::Amount,
            About {
                what: "Profit and loss of open positions over time, by strategy.",
                healthy: "Swings around 0.",
                act: "A drift to one side means a position that nobody closes.",
            },
            vec![SOURCE.lines(
                BY_STRATEGY,
                "sum(unrealized)",
                UNREALIZED,
                "unrealized_pnl IS NOT NULL",
            )],
        )
        .named(STRATEGY)
        .decimals(2),
    ]
}

fn orders() -> Vec<Panel> {
    let growth = SOURCE.growth(&["orders_placed", "orders_filled"], "");
    let fill_rate = format!(
        "SELECT time, strategy, daemon, env,\n  CASE WHEN sum(orders_placed) > 0 \
         THEN sum(orders_filled) * 1.0 / sum(orders_placed) END AS value FROM (\n{growth}\n)\n\
         GROUP BY time, strategy, daemon, env ORDER BY time"
    );
    vec![
        Panel::new(
            5,
            "orders",
            Kind::TimeSeries,
            "Orders per minute",
            Unit::PerMinute,
            About {
                what: "Orders placed, per minute and strategy.",
                healthy: "A level of its own for every strategy.",
                act: "A burst is a loop that places again and again: stop the strategy. 0 in a \
                      moving market: it does not see prices.",
            },
            vec![SOURCE.rate("strategy, daemon, env", "orders_placed", 60_000, "")],
        )
        .size(8, 8)
        .named("${__field.labels.strategy}")
        .range(Some(0.0), None),
        Panel::new(
            6,
            "fill_rate",
            Kind::TimeSeries,
            "Fill rate",
            Unit::Share,
            About {
                what: "Filled orders divided by placed orders, in each bucket.",
                healthy: "Above the dashed mark for strategies that take; makers live with less.",
                act: "A fall: prices are stale (see Latency on the Exchange dashboard) or orders \
                      are refused.",
            },
            vec![super::sql::series(fill_rate)],
        )
        .size(8, 8)
        .named("${__field.labels.strategy}")
        .scale(Scale::rule_below("trading_fill_rate"))
        .range(Some(0.0), Some(1.0))
        // Few orders in a short bucket make a ratio of nothing.
        .every("5m")
        .explains(&["trading_fill_rate"]),
        Panel::new(
            7,
            "orders_open",
            Kind::TimeSeries,
            "Open orders",
            Unit::Count,
            About {
                what: "Orders that wait at the venue, by strategy.",
                healthy: "A few.",
                act: "A rising line means orders that are never cancelled: cancel them at the \
                      venue, then look at the strategy.",
            },
            vec![SOURCE.lines(
                "strategy, daemon, env",
                "sum(orders)",
                OPEN,
                "orders_open IS NOT NULL",
            )],
        )
        .size(8, 8)
        .named("${__field.labels.strategy}")
        .range(Some(0.0), None),
    ]
}

fn risk() -> Vec<Panel> {
    let newest = SOURCE.newest_by_key(
        &[
            PNL,
            UNREALIZED,
            value("position", "last_not_null(position_size)", "last_not_null(position_size)"),
            EXPOSURE,
            EQUITY,
            value("drawdown", "last_not_null(drawdown)", "last_not_null(drawdown_last)"),
            value("filled", "last_not_null(fill_rate)", "last_not_null(fill_rate)"),
            OPEN,
        ],
        "",
    );
    let list = format!(
        "SELECT strategy, symbol, venue, currency, pnl, unrealized, position, exposure, equity, \
         drawdown, filled AS fill_rate, orders AS open_orders, daemon, at AS updated\nFROM (\n\
         {newest}\n)\nORDER BY strategy, symbol, venue, currency LIMIT 500"
    );
    vec![
        Panel::new(
            8,
            "exposure_now",
            Kind::BarGauge,
            "Exposure per symbol",
            Unit::Amount,
            About {
                what: "Net exposure of each symbol over all strategies, at the end of the range, \
                       in the currency beside its name.",
                healthy: "Within the limits of your account.",
                act: "Reduce the largest bar first.",
            },
            vec![SOURCE.newest(BY_SYMBOL, "sum(exposure)", EXPOSURE, "exposure IS NOT NULL")],
        )
        .size(8, 8)
        .named(SYMBOL)
        .scale(Scale::plain(BLUE))
        .decimals(2),
        Panel::new(
            9,
            "exposure",
            Kind::TimeSeries,
            "Exposure over time",
            Unit::Amount,
            About {
                what: "Net exposure of each symbol over all strategies.",
                healthy: "Returns to 0 between trades.",
                act: "A level that stays is a position that was forgotten, or a hedge that failed.",
            },
            vec![SOURCE.lines(BY_SYMBOL, "sum(exposure)", EXPOSURE, "exposure IS NOT NULL")],
        )
        .size(8, 8)
        .named(SYMBOL)
        .decimals(2),
        Panel::new(
            10,
            "drawdown",
            Kind::TimeSeries,
            "Drawdown",
            Unit::Share,
            About {
                what: "Loss from the peak of equity, the worst of each bucket.",
                healthy: "Below the first dashed mark.",
                act: "At the first mark reduce size; at the second stop the strategy.",
            },
            vec![SOURCE.lines(
                "strategy, daemon, env",
                "max(drawdown)",
                DRAWDOWN,
                "drawdown IS NOT NULL",
            )],
        )
        .size(8, 8)
        .named("${__field.labels.strategy}")
        .scale(Scale::rule("trading_drawdown"))
        .range(Some(0.0), None)
        .explains(&["trading_drawdown"]),
        Panel::new(
            11,
            "strategies",
            Kind::Table,
            "Strategies",
            Unit::Amount,
            About {
                what: "The newest figures of every strategy and instrument in the range.",
                healthy: "Every line updated within the poll interval.",
                act: "An old \"updated\" means that the strategy no longer reports this \
                      instrument.",
            },
            vec![table(list)],
        )
        .size(24, 9)
        .column(Column::unit("pnl", Unit::Amount).scale(gain()))
        .column(Column::unit("unrealized", Unit::Amount).scale(gain()))
        .column(Column::unit("drawdown", Unit::Share).scale(Scale::rule("trading_drawdown")))
        .column(
            Column::unit("fill_rate", Unit::Share).scale(Scale::rule_below("trading_fill_rate")),
        )
        .column(Column::unit("open_orders", Unit::Count))
        .decimals(2)
        .empty("no daemon reports trading"),
    ]
}
