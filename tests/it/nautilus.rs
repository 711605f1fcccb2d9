//! A real `NautilusTrader` node, unmodified: what periscope writes is what the node says of itself.

use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::support::periscope::Periscope;
use super::support::venv;
use super::support::viewer::{Seen, panel};
use super::support::wait::until;

const NODE: &str = "tests/python/nautilus/node.py";
const SYMBOLS: [&str; 2] = ["BTCUSDT-PERP", "ETHUSDT-PERP"];

/// Returns a Python with the package.
fn python() -> PathBuf {
    let requirements = "tests/python/nautilus/requirements.txt";
    venv::python("venv-nautilus", requirements, "import nautilus_trader.live.node")
}

/// A node that trades; killed with the test.
struct Node {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Node {
    fn start(mut command: Command) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(NODE);
        command.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap()).lines();
        let input = child.stdin.take().unwrap();
        let mut node = Self { child, input, output };
        assert_eq!(node.line(), "ready");
        node
    }

    /// Returns its next line that is not the node's own log.
    fn line(&mut self) -> String {
        loop {
            let line = self.output.next().expect("the node has ended").unwrap();
            if line == "ready" || line.starts_with('{') {
                return line;
            }
        }
    }

    /// Has it do something; returns its own report after that.
    fn tell(&mut self, line: &str) -> Value {
        writeln!(self.input, "{line}").unwrap();
        serde_json::from_str(&self.line()).unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _ended = self.child.wait();
    }
}

/// Returns the newest row of each symbol, as the node's report has it.
async fn stored(periscope: &Periscope, daemon: &str) -> Result<Value, String> {
    let sql = format!(
        "select symbol, pnl, unrealized_pnl, position_size, exposure, orders_placed, orders_filled, \
         orders_open, venue, currency from trading_metrics where daemon = '{daemon}' and symbol <> \
         'account' latest on timestamp partition by strategy, symbol, venue, currency"
    );
    let mut instruments = serde_json::Map::new();
    for row in periscope.sql(&sql).await? {
        assert_eq!(row[8..], [json!("binance"), json!("USDT")], "{row:?}");
        let fields = ["pnl", "unrealized_pnl", "position_size", "exposure"];
        let counts = ["orders_placed", "orders_filled", "orders_open"];
        let values = fields.into_iter().chain(counts).zip(row[1..8].iter().cloned());
        let values: serde_json::Map<_, _> =
            values.map(|(name, value)| (name.to_owned(), value)).collect();
        instruments.insert(row[0].as_str().unwrap().to_owned(), values.into());
    }
    Ok(instruments.into())
}

/// Whether two reports agree: sums of the same amounts in another order differ in the last digits.
fn agree(node: &Value, stored: &Value) -> bool {
    SYMBOLS.iter().all(|symbol| {
        let (node, stored) = (&node[symbol], &stored[symbol]);
        node.as_object()
            .is_some_and(|fields| fields.iter().all(|(name, value)| is_close(value, &stored[name])))
    })
}

fn is_close(node: &Value, stored: &Value) -> bool {
    let pair = node.as_f64().zip(stored.as_f64());
    pair.is_some_and(|(node, stored)| (node - stored).abs() < 1e-6)
}

/// Waits until what is stored is what the node reports.
async fn until_equal(periscope: &Periscope, node: &Value, daemon: &str) -> Value {
    until("the rows to be as the node reports", Duration::from_secs(60), || async {
        let stored = stored(periscope, daemon).await?;
        let equal = agree(&node["instruments"], &stored);
        if equal { Ok(stored) } else { Err(format!("node {node}\nstored {stored}")) }
    })
    .await
}

async fn until_connected(periscope: &Periscope, connected: bool) {
    until("the venue's row", Duration::from_secs(30), || async {
        let sql = "select connected, disconnected_at, reconnect_count, last_message_at is not null \
                   from exchange_status where daemon = 'walker' and exchange = 'binance' \
                   latest on timestamp partition by exchange";
        let rows = periscope.sql(sql).await?;
        let row = rows.first().ok_or("no row")?;
        let is_so = row[0] == connected && (row[1] == Value::Null) == connected;
        if is_so && row[3] == true { Ok(row.clone()) } else { Err(format!("{row:?}")) }
    })
    .await;
}

/// A13, A14, A15: what the node reports is what the panels of Trading show.
async fn dashboards_show(seen: &Seen, report: &Value) {
    let of_symbol = |rows: &[Value], symbol: &str| {
        rows.iter().filter(|row| row["symbol"] == symbol).cloned().collect::<Vec<_>>()
    };
    let pairs = [
        ("Realised PnL now", "pnl"),
        ("Unrealised PnL now", "unrealized_pnl"),
        ("Exposure per symbol", "exposure"),
    ];
    for (title, field) in pairs {
        until(title, Duration::from_secs(30), || async {
            let rows = panel(seen, "periscope-trading", title).await?;
            // A panel may show the sum over all symbols.
            let sum = |rows: &[Value]| rows.iter().filter_map(|row| row["value"].as_f64()).sum();
            let shown: f64 = sum(&rows);
            let node: f64 = SYMBOLS
                .iter()
                .filter_map(|symbol| report["instruments"][symbol][field].as_f64())
                .sum();
            let each = SYMBOLS.iter().all(|symbol| {
                let rows = of_symbol(&rows, symbol);
                let shown: f64 = sum(&rows);
                let node = report["instruments"][symbol][field].as_f64().unwrap_or_default();
                rows.is_empty() || (shown - node).abs() < 1e-6
            });
            let equal = each && (shown - node).abs() < 1e-6;
            if equal { Ok(()) } else { Err(format!("{rows:?}\nnode {report}")) }
        })
        .await;
    }
    let rows = panel(seen, "periscope-trading", "Orders per minute").await.unwrap();
    assert!(rows.iter().any(|row| row["value"].as_f64() > Some(0.0)), "{rows:?}");
}

#[tokio::test]
async fn an_unmodified_node_is_written_as_it_reports_itself() {
    let python = python();
    let periscope = Periscope::up("");
    periscope.ready().await;
    let mut command = Command::new(env!("CARGO_BIN_EXE_periscope"));
    command.arg("--data-dir").arg(periscope.data());
    command.args(["run", "--name", "walker", "--target", "nautilus", "--"]).arg(python);
    let mut node = Node::start(command);
    // Both strategies have closed and opened positions again.
    periscope
        .until_count(
            "select min(orders_filled) from (select orders_filled from trading_metrics where \
             daemon = 'walker' and symbol <> 'account' latest on timestamp partition by symbol)",
            |filled| filled >= 9,
        )
        .await;
    let report = node.tell("still");
    assert_eq!(
        (&report["data_connected"], &report["exec_connected"]),
        (&json!(true), &json!(true))
    );
    let before = until_equal(&periscope, &report, "walker").await;
    for symbol in SYMBOLS {
        assert_ne!(before[symbol]["pnl"], 0.0, "nothing was traded: {before}");
    }

    // A fill is in the database within 5 s, polled as it is without any configuration.
    let filled = Instant::now();
    let report = node.tell("flip");
    let sizes = |of: &Value| SYMBOLS.map(|symbol| of[symbol]["position_size"].clone());
    assert_ne!(sizes(&report["instruments"]), sizes(&before));
    until("the fill", Duration::from_secs(30), || async {
        let stored = stored(&periscope, "walker").await?;
        let node = &report["instruments"];
        let pnl = |symbol: &&str| is_close(&node[*symbol]["pnl"], &stored[*symbol]["pnl"]);
        let seen = sizes(&stored) == sizes(node) && SYMBOLS.iter().all(pnl);
        if seen { Ok(()) } else { Err(stored.to_string()) }
    })
    .await;
    println!("a fill was visible by SQL after {:?}", filled.elapsed());
    until_equal(&periscope, &report, "walker").await;

    // Its account: equity, and the drawdown from its peak.
    let sql = "select strategy, venue, currency, equity, drawdown from trading_metrics where \
               daemon = 'walker' and symbol = 'account' latest on timestamp partition by strategy";
    let rows = periscope.sql(sql).await.unwrap();
    assert_eq!(rows[0][..3], [json!("WALKER-001"), json!("binance"), json!("USDT")]);
    let balance = report["balance"]["USDT"].as_f64().unwrap();
    let open: f64 = SYMBOLS
        .iter()
        .map(|symbol| report["instruments"][symbol]["unrealized_pnl"].as_f64().unwrap())
        .sum();
    let (equity, drawdown) = (rows[0][3].as_f64().unwrap(), rows[0][4].as_f64().unwrap());
    assert!((equity - balance - open).abs() < 1e-6, "{equity} is not {balance} + {open}");
    assert!((0.0..0.01).contains(&drawdown), "{drawdown}");

    let seen = Seen::of(periscope);
    dashboards_show(&seen, &report).await;
    let Seen { periscope, .. } = seen;
    let status = periscope.status().await.unwrap();
    assert_eq!(status["daemons"][0]["interval_seconds"], 2.0, "{status}");
    until_connected(&periscope, true).await;
    node.tell("disconnect");
    until_connected(&periscope, false).await;
    node.tell("connect");
    until_connected(&periscope, true).await;

    // While the loop is blocked the poll says so; it is answered all the same.
    node.tell("block 4");
    let lag = "select max(event_loop_lag_ms) > 1000 from daemon_metrics where daemon = 'walker' and \
               poll_error = 'status_error'";
    until("the blocked loop", Duration::from_secs(30), || async {
        let rows = periscope.sql(lag).await?;
        if rows[0][0] == true { Ok(()) } else { Err(format!("{rows:?}")) }
    })
    .await;
}

#[tokio::test]
async fn the_actor_of_a_node_pushes_the_same() {
    let python = python();
    let periscope = Periscope::up("");
    periscope.ready().await;
    // A token that is not asked for does no harm.
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "canary-token\n").unwrap();
    let actor = json!({
        "daemon": "walker/actor", "url": periscope.listener().unwrap(),
        "token_file": token, "interval_seconds": 0.5,
    });
    let venv = python.ancestors().nth(2).unwrap();
    let installed = Command::new(env!("CARGO_BIN_EXE_periscope"))
        .args(["shim", "install", "--venv"])
        .arg(venv)
        .output()
        .unwrap();
    assert!(installed.status.success(), "{installed:?}");
    let mut command = Command::new(python.as_os_str());
    command.env("NODE_ACTOR", actor.to_string());
    let mut node = Node::start(command);
    let report = node.tell("still");
    until_equal(&periscope, &report, "walker/actor").await;
    let report = node.tell("flip");
    until_equal(&periscope, &report, "walker/actor").await;
    let venue = "select count() from exchange_status where daemon = 'walker/actor' and connected";
    periscope.until_count(venue, |count| count > 0).await;
    let status = periscope.status().await.unwrap();
    assert_eq!(status["daemons"][0]["source"], "push", "{status}");
}
