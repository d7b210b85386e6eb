//! `oklogd status`: how a node is, for people, and by its exit code for whoever checks health.
//!
//! Invariants: exit code 0 only where the node says itself that it turns and that it can take its work;
//! what is wrong is told with the node's own reasons.

use std::fmt::Write;
use std::time::Duration;

use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use super::object::{Answered, Failed, ask};
use super::store::Store;
use super::table::{Side, lines, size};
use crate::client::http::block_on;
use crate::exit::Exit;
use crate::output;
use crate::settings::{Settings, SettingsError};
use crate::units::{Endpoint, format_duration};

/// Longest answer that is read, bytes: thousands of nodes.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// What `status` is told.
#[derive(Debug)]
pub(crate) struct StatusConfig {
    store: Store,
    timeout: Option<Duration>,
    json: bool,
}

impl StatusConfig {
    /// Makes it of settings that were resolved with [`crate::flag_table::STATUS`].
    pub(crate) fn from_settings(settings: &Settings) -> Result<Self, SettingsError> {
        let timeout = settings.duration("timeout");
        Ok(Self {
            store: Store::from_settings(settings)?,
            timeout: (!timeout.is_zero()).then_some(timeout),
            json: settings.bool("json"),
        })
    }
}

/// What a node says of itself.
struct Status {
    health: Answered,
    ready: Answered,
    cluster: Value,
}

impl Status {
    fn is_well(&self) -> bool {
        self.health.status == StatusCode::OK && self.ready.status == StatusCode::OK
    }
}

/// Asks and prints.
pub(crate) fn run(config: &StatusConfig) -> Exit {
    let asked = block_on(async {
        match config.timeout {
            None => ask_all(&config.store).await,
            Some(time) => {
                let late = |_| {
                    Err(Failed {
                        exit: Exit::Error,
                        words: format!(
                            "{} has not answered within --timeout {}",
                            config.store,
                            format_duration(time)
                        ),
                    })
                };
                tokio::time::timeout(time, ask_all(&config.store)).await.unwrap_or_else(late)
            }
        }
    });
    let status = match asked {
        Ok(Ok(status)) => status,
        Ok(Err(failed)) => return failed.tell(),
        Err(error) => return output::fail(Exit::Error, format_args!("cannot start: {error}")),
    };
    let exit = if status.is_well() { Exit::Done } else { Exit::Error };
    let printed = if config.json { json_of(&status) } else { text_of(&config.store, &status) };
    output::print(printed.as_bytes(), exit)
}

async fn ask_all(store: &Store) -> Result<Status, Failed> {
    let told = [StatusCode::OK, StatusCode::SERVICE_UNAVAILABLE];
    let get = async |path| ask(store, (Method::GET, path), &told, ANSWER_BYTES_MAX).await;
    let (health, ready) = (get("/health").await?, get("/ready").await?);
    let cluster = get("/_clusterstate").await?.object;
    if health.object["service"] != "oklogd" {
        let words = format!("{store} answers, and is no oklogd: its /health does not say so");
        return Err(Failed { exit: Exit::Error, words });
    }
    Ok(Status { health, ready, cluster })
}

fn json_of(status: &Status) -> String {
    let object = json!({
        "well": status.is_well(),
        "healthy": status.health.status == StatusCode::OK,
        "ready": status.ready.status == StatusCode::OK,
        "health": status.health.object,
        "readiness": status.ready.object,
        "cluster": status.cluster,
    });
    format!("{object}\n")
}

fn text_of(store: &Endpoint, status: &Status) -> String {
    let word = |answer: &Answered, yes: &str, no: &str| {
        if answer.status == StatusCode::OK { yes.to_owned() } else { no.to_owned() }
    };
    let head = [
        store.to_string(),
        word(&status.health, "healthy", "not healthy"),
        word(&status.ready, "ready", "not ready"),
    ];
    let reasons = |answer: &Answered| {
        let reasons = answer.object["reasons"].as_array().cloned().unwrap_or_default();
        reasons.iter().map(|reason| reason.as_str().unwrap_or("?").to_owned()).collect::<Vec<_>>()
    };
    let mut told = reasons(&status.health);
    told.extend(reasons(&status.ready));
    told.sort();
    told.dedup();
    let mut out = lines([Side::Left; 3], &[head]);
    let told: Vec<_> = told.into_iter().map(|reason| ["  -".to_owned(), reason]).collect();
    out += &lines([Side::Left; 2], &told);
    out.push('\n');
    out += &nodes(&status.cluster);
    let volumes = &status.cluster["volumes"];
    let count = |name: &str| volumes[name].as_u64().unwrap_or(0);
    // Writing to memory cannot fail.
    let _ = writeln!(
        out,
        "\nvolumes: {} in all, {} below their copies, {} above, {} moving",
        count("total"),
        count("under"),
        count("over"),
        count("moving")
    );
    if status.cluster["insecure"] == true {
        out += "insecure: whoever reaches its ports is taken for a member\n";
    }
    out
}

fn nodes(cluster: &Value) -> String {
    let head = ["NODE", "STATE", "ROLES", "VERSION", "BACKLOG", "DISK FREE"].map(str::to_owned);
    let members = cluster["nodes"].as_array().map_or(&[][..], Vec::as_slice);
    let row = |node: &Value| {
        let text = |name: &str| node[name].as_str().unwrap_or("?").to_owned();
        let roles = node["roles"].as_array().map_or(&[][..], Vec::as_slice);
        let roles: Vec<_> = roles.iter().filter_map(Value::as_str).collect();
        [
            text("address"),
            text("state"),
            roles.join("+"),
            text("version"),
            size(node["backlog_bytes"].as_u64().unwrap_or(0)),
            size(node["disk_free_bytes"].as_u64().unwrap_or(0)),
        ]
    };
    let rows: Vec<_> = std::iter::once(head).chain(members.iter().map(row)).collect();
    let (left, right) = (Side::Left, Side::Right);
    lines([left, left, left, left, right, right], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_told_once_in_the_words_of_the_node() {
        let answer = |status, reasons: &[&str]| {
            let object = json!({"service": "oklogd", "reasons": reasons});
            Answered { status, text: Vec::new(), object }
        };
        let status = Status {
            health: answer(StatusCode::OK, &["replicas are missing"]),
            ready: answer(
                StatusCode::SERVICE_UNAVAILABLE,
                &["replicas are missing", "draining\x1b"],
            ),
            cluster: json!({
                "insecure": false,
                "nodes": [{
                    "address": "127.0.0.1:7650", "state": "up", "roles": ["ingest", "store"],
                    "version": "0.1.0", "backlog_bytes": 2048, "disk_free_bytes": 5_u64 << 30,
                }],
                "volumes": {"total": 3, "under": 1, "over": 0, "moving": 0},
            }),
        };
        let store = Endpoint { host: "localhost".to_owned(), port: 7650 };
        assert_eq!(
            text_of(&store, &status),
            "localhost:7650  healthy  not ready\n  -  draining\\x1b\n  -  replicas are missing\n\n\
             NODE            STATE  ROLES         VERSION  BACKLOG  DISK FREE\n\
             127.0.0.1:7650  up     ingest+store  0.1.0    2.0 KiB    5.0 GiB\n\n\
             volumes: 3 in all, 1 below their copies, 0 above, 0 moving\n"
        );
        assert!(!status.is_well());
        let object: Value = serde_json::from_str(&json_of(&status)).unwrap();
        assert_eq!((&object["well"], &object["healthy"]), (&false.into(), &true.into()));
    }
}
