//! Reading by SQL over the PG wire, as a user that cannot change anything.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use crate::base::tasks::spawn_detached;
use crate::model::server::Endpoint;

/// Rows of an answer as text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answer {
    /// Names of the columns.
    pub columns: Vec<String>,
    /// Values; `None` is null.
    pub rows: Vec<Vec<Option<String>>>,
}

/// Why there is no answer. Passwords never appear.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// No connection, or the login is refused.
    #[error("connect to questdb at {pg}: {reason}")]
    Connect {
        /// `host:port`.
        pg: String,
        /// The system's or the server's words.
        reason: String,
    },
    /// The time limit passed.
    #[error("no answer from questdb at {pg} within {limit:?}")]
    Timeout {
        /// `host:port`.
        pg: String,
        /// The limit.
        limit: Duration,
    },
    /// The statement failed.
    #[error("questdb: {0}")]
    Statement(String),
}

/// Runs `sql` and returns its rows, all within `limit`.
///
/// # Errors
/// See [`ReadError`]. A statement that changes something is refused by the server.
pub async fn query(endpoint: &Endpoint, sql: &str, limit: Duration) -> Result<Answer, ReadError> {
    Session::new(endpoint).query(sql, limit).await
}

/// Several statements over one connection, which is made when it is needed and left when it fails.
///
/// Not for long: the server reads tables over a connection as they were when it first did.
pub struct Session<'a> {
    endpoint: &'a Endpoint,
    connection: Option<Connection>,
}

impl std::fmt::Debug for Session<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("pg", &self.endpoint.pg).finish_non_exhaustive()
    }
}

impl<'a> Session<'a> {
    /// Makes one; nothing is connected yet.
    pub const fn new(endpoint: &'a Endpoint) -> Self {
        Self { endpoint, connection: None }
    }

    /// Runs `sql` and returns its rows, all within `limit`.
    ///
    /// # Errors
    /// As of [`query`].
    pub async fn query(&mut self, sql: &str, limit: Duration) -> Result<Answer, ReadError> {
        // Taken out: a statement that is given up is given up with its connection.
        let connection = self.connection.take();
        let asking = async {
            let connection = match connection {
                Some(connection) => connection,
                None => connect(self.endpoint).await?,
            };
            let messages = connection.client().simple_query(sql).await;
            Ok((connection, messages))
        };
        let pg = &self.endpoint.pg;
        let (connection, messages) = tokio::time::timeout(limit, asking)
            .await
            .unwrap_or_else(|_elapsed| Err(ReadError::Timeout { pg: pg.clone(), limit }))?;
        match messages {
            Ok(messages) => {
                self.connection = Some(connection);
                Ok(collect(messages))
            }
            Err(error) if error.is_closed() => {
                Err(ReadError::Connect { pg: pg.clone(), reason: words(&error) })
            }
            Err(error) => {
                self.connection = Some(connection);
                Err(ReadError::Statement(words(&error)))
            }
        }
    }
}

/// A connection that is cut when it is dropped: the server then stops working for it, which a
/// polite end would wait for.
pub(super) struct Connection {
    client: Client,
    driver: JoinHandle<Result<(), tokio_postgres::Error>>,
}

impl Connection {
    pub(super) const fn client(&self) -> &Client {
        &self.client
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Connects as the user that only reads.
pub(super) async fn connect(endpoint: &Endpoint) -> Result<Connection, ReadError> {
    let refused = |reason: String| ReadError::Connect { pg: endpoint.pg.clone(), reason };
    let (host, port) = endpoint
        .pg
        .rsplit_once(':')
        .and_then(|(host, port)| Some((host.trim_matches(['[', ']']), port.parse().ok()?)))
        .ok_or_else(|| refused("the address is not host:port".to_owned()))?;
    let mut config = tokio_postgres::Config::new();
    config.host(host).port(port).dbname(&endpoint.database).application_name("periscope");
    if let Some(login) = &endpoint.reader {
        config.user(&login.user).password(login.password.reveal());
    }
    let (client, connection) =
        config.connect(NoTls).await.map_err(|error| refused(words(&error)))?;
    Ok(Connection { client, driver: spawn_detached(connection) })
}

fn collect(messages: Vec<SimpleQueryMessage>) -> Answer {
    let mut answer = Answer::default();
    for message in messages {
        match message {
            SimpleQueryMessage::RowDescription(columns) => {
                answer.columns = columns.iter().map(|column| column.name().to_owned()).collect();
            }
            SimpleQueryMessage::Row(row) => {
                answer.rows.push((0..row.len()).map(|i| row.get(i).map(str::to_owned)).collect());
            }
            // How many rows there were (they are counted already), or what a later version adds.
            SimpleQueryMessage::CommandComplete(_) | _ => {}
        }
    }
    answer
}

/// Returns the server's words, or those of the innermost cause.
pub(super) fn words(error: &tokio_postgres::Error) -> String {
    if let Some(server) = error.as_db_error() {
        return server.message().to_owned();
    }
    let mut deepest: &dyn std::error::Error = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(pg: &str) -> Endpoint {
        Endpoint {
            http: String::new(),
            pg: pg.to_owned(),
            database: "qdb".to_owned(),
            admin: None,
            reader: None,
        }
    }

    #[tokio::test]
    async fn a_server_that_is_away_or_silent_is_told_within_the_limit() {
        let limit = Duration::from_millis(200);
        let error = query(&endpoint("127.0.0.1:1"), "select 1", limit).await.unwrap_err();
        assert!(matches!(error, ReadError::Connect { .. }), "{error}");
        let error = query(&endpoint("nonsense"), "select 1", limit).await.unwrap_err();
        assert!(error.to_string().contains("not host:port"), "{error}");
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = silent.local_addr().unwrap().to_string();
        let error = query(&endpoint(&address), "select 1", limit).await.unwrap_err();
        assert!(matches!(error, ReadError::Timeout { .. }), "{error}");
    }
}
