//! What a node is told to do, as typed values that fit each other.
//!
//! Invariants: made once at start from checked settings; nothing in it changes afterwards. Does
//! not look at the machine (cores, disks, limits): the node does that.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use engine::ingest::framing::Framing;
use engine::store::writer::Compression;
use engine::topic::{DEFAULT_TOPIC, Topic};
use net::http::{LOG_TOPIC_DEFAULT, Proxies, Sites, StatsShape};
use net::limits::QUERY_BYTES_MAX;

use crate::logging::LogConfig;
use crate::settings::{Settings, SettingsError};
use crate::units::Endpoint;

/// Ports of the listeners that name none.
pub(crate) const API_PORT: u16 = 7650;
const FAST_PORT: u16 = 7651;
const DURABLE_PORT: u16 = 7652;

/// Segments of which a store of bounded size is made at least: what goes at a time.
pub(crate) const RETAIN_PARTS: u64 = 8;
/// Smallest segment size that can be set, bytes.
const SEGMENT_BYTES_MIN: u64 = 1 << 20;

/// How records get their topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TopicMode {
    /// Every record has this one.
    Static(Topic),
    /// The first word of the line is its topic.
    Dynamic,
}

/// Everything that a node is told.
#[derive(Debug, Clone)]
pub(crate) struct NodeConfig {
    /// Listener of HTTP.
    pub(crate) api: Endpoint,
    /// Shards and cores to use; `None`: what affinity and cgroup quota leave.
    pub(crate) cores: Option<usize>,
    /// Time to finish work after a signal.
    pub(crate) shutdown_timeout: Duration,
    /// Free space below which new records are refused, bytes; `None`: by the size of the disk.
    pub(crate) disk_free_min_bytes: Option<u64>,
    /// The ingest side, of a node that takes records.
    pub(crate) ingest: Option<IngestConfig>,
    /// The store side, of a node that keeps them.
    pub(crate) store: Option<StoreConfig>,
    /// The search side.
    pub(crate) query: QueryConfig,
    /// Who may do what; `None`: everybody everything.
    pub(crate) auth_file: Option<PathBuf>,
    /// The HTTP server.
    pub(crate) http: HttpConfig,
    /// What is logged.
    pub(crate) log: LogConfig,
}

/// The ingest side of a node.
#[derive(Debug, Clone)]
pub(crate) struct IngestConfig {
    /// Listener of fast mode.
    pub(crate) fast: Endpoint,
    /// Listener of durable mode.
    pub(crate) durable: Endpoint,
    /// Directory of ingest segments.
    pub(crate) path: PathBuf,
    /// How records get their topic.
    pub(crate) topic_mode: TopicMode,
    /// Distinct topics before further ones become `invalid`.
    pub(crate) topics_max: usize,
    /// What shards wait on.
    pub(crate) io: net::driver::Wanted,
    /// How plain senders mark where their messages end.
    pub(crate) framing: Framing,
    /// How long an unfinished line waits for its end before it is a record; `None`: for ever.
    pub(crate) unfinished_line_after: Option<Duration>,
    /// What a killed process may lose in fast mode.
    pub(crate) flush_interval: Duration,
    /// Longest record without its LF, bytes.
    pub(crate) max_record_size_bytes: usize,
    /// Connections at a time on the ingest ports.
    pub(crate) connections_max: usize,
    /// Connections of one address on the ingest ports.
    pub(crate) connections_per_address_max: usize,
    /// Memory for unfinished lines, bytes.
    pub(crate) partial_max_bytes: usize,
    /// What may wait for the store before senders are slowed down, bytes.
    pub(crate) backlog_max_bytes: u64,
    /// Size at which a segment is flushed, bytes.
    pub(crate) segment_flush_size_bytes: u64,
    /// Age at which a segment is flushed.
    pub(crate) segment_flush_age: Duration,
    /// How long a claim lasts without a commit.
    pub(crate) segment_pending_timeout: Duration,
}

/// The store side of a node.
#[derive(Debug, Clone)]
pub(crate) struct StoreConfig {
    /// Directory of store segments.
    pub(crate) path: PathBuf,
    /// Copies of each segment.
    pub(crate) replication_factor: usize,
    /// Gathers that run at a time.
    pub(crate) segment_consumers: usize,
    /// Size up to which a gather collects, bytes.
    pub(crate) segment_target_size_bytes: u64,
    /// Time for which a gather collects.
    pub(crate) segment_target_age: Duration,
    /// How text is stored.
    pub(crate) compression: Compression,
    /// What signatures may take beside the blocks, percent.
    pub(crate) signature_percent: u64,
    /// Time between looks for flushed segments.
    pub(crate) segment_delay: Duration,
    /// Age of a segment's newest record at which it goes to the trash.
    pub(crate) segment_retain: Duration,
    /// Time in the trash.
    pub(crate) segment_purge: Duration,
    /// What the store may hold, trash included, bytes; `None`: no bound.
    pub(crate) retain_size_bytes: Option<u64>,
}

/// The search side of a node.
#[derive(Debug, Clone)]
pub(crate) struct QueryConfig {
    /// Queries that run at a time.
    pub(crate) max_concurrent: usize,
    /// What all queries may hold together, bytes.
    pub(crate) memory_max_bytes: u64,
    /// How long a query waits for its turn.
    pub(crate) wait_max: Duration,
}

/// The HTTP server of a node.
#[derive(Debug, Clone)]
pub(crate) struct HttpConfig {
    /// Connections at a time.
    pub(crate) connections_max: usize,
    /// Connections of one address.
    pub(crate) connections_per_address_max: usize,
    /// How long a connection may be silent between or inside request heads.
    pub(crate) idle_timeout: Duration,
    /// Topic of entries.
    pub(crate) log_topic: Topic,
    /// What `/api/stats` is answered with.
    pub(crate) api_stats: StatsShape,
    /// Names it answers to on loopback, and pages that may change something.
    pub(crate) sites: Arc<Sites>,
    /// Requests a second of one address, and of one token; `None`: any.
    pub(crate) rate_limit: Option<u64>,
    /// Who says for whom he asks.
    pub(crate) proxies: Arc<Proxies>,
}

impl HttpConfig {
    /// Connections of one address: as many as were asked for, and never all there are.
    pub(crate) fn of_one_address(&self) -> usize {
        self.connections_per_address_max.min(self.connections_max - self.connections_max / 8)
    }
}

impl QueryConfig {
    /// Queries that may run at a time: as many as were asked for, if their memory holds them.
    pub(crate) fn queries_max(&self) -> usize {
        let by_memory = usize::try_from(self.memory_max_bytes).unwrap_or(usize::MAX);
        self.max_concurrent.min((by_memory / QUERY_BYTES_MAX).max(1))
    }
}

impl NodeConfig {
    /// Makes it of settings that were resolved with [`crate::flag_table::NODE`].
    pub(crate) fn from_settings(settings: &Settings) -> Result<Self, SettingsError> {
        let listen = settings.text("listen");
        let endpoint = |name, port| settings.address(name).or(&listen, port);
        let mut config = Self {
            api: endpoint("api", API_PORT),
            cores: settings.optional_number("cores").map(|cores| cores as usize),
            shutdown_timeout: settings.duration("shutdown-timeout"),
            disk_free_min_bytes: settings.optional_number("disk.free-min"),
            ingest: Some(IngestConfig {
                fast: endpoint("ingest.fast", FAST_PORT),
                durable: endpoint("ingest.durable", DURABLE_PORT),
                path: settings.text("ingest.path").into(),
                topic_mode: topic_mode(settings),
                topics_max: settings.number("ingest.topics-max") as usize,
                io: io(settings),
                framing: framing(settings),
                unfinished_line_after: Some(settings.duration("ingest.unfinished-line-after"))
                    .filter(|after| !after.is_zero()),
                flush_interval: settings.duration("ingest.flush-interval"),
                max_record_size_bytes: settings.number("ingest.max-record-size") as usize,
                connections_max: settings.number("ingest.connections-max") as usize,
                connections_per_address_max: settings.number("ingest.connections-per-address-max")
                    as usize,
                partial_max_bytes: settings.number("ingest.partial-max-size") as usize,
                backlog_max_bytes: settings.number("ingest.backlog-max-size"),
                segment_flush_size_bytes: settings.number("ingest.segment-flush-size"),
                segment_flush_age: settings.duration("ingest.segment-flush-age"),
                segment_pending_timeout: settings.duration("ingest.segment-pending-timeout"),
            }),
            store: Some(StoreConfig {
                path: settings.text("store.path").into(),
                replication_factor: settings.number("store.segment-replication-factor") as usize,
                segment_consumers: settings.number("store.segment-consumers") as usize,
                segment_target_size_bytes: settings.number("store.segment-target-size"),
                segment_target_age: settings.duration("store.segment-target-age"),
                compression: compression(settings),
                signature_percent: settings.number("store.signature-percent"),
                segment_delay: settings.duration("store.segment-delay"),
                segment_retain: settings.duration("store.segment-retain"),
                segment_purge: settings.duration("store.segment-purge"),
                retain_size_bytes: settings.optional_number("store.retain-size"),
            }),
            query: QueryConfig {
                max_concurrent: settings.number("query.max-concurrent") as usize,
                memory_max_bytes: settings.number("query.memory-max"),
                wait_max: settings.duration("query.wait-max"),
            },
            auth_file: settings.optional_text("auth.file").map(PathBuf::from),
            http: HttpConfig {
                connections_max: settings.number("http.connections-max") as usize,
                connections_per_address_max: settings.number("http.connections-per-address-max")
                    as usize,
                idle_timeout: settings.duration("http.idle-timeout"),
                log_topic: topic(settings, "http.log-topic", LOG_TOPIC_DEFAULT),
                api_stats: api_stats(settings),
                sites: sites(settings)?,
                rate_limit: settings.optional_number("http.rate-limit"),
                proxies: proxies(settings)?,
            },
            log: LogConfig::from_settings(settings),
        };
        config.check()?;
        config.fit_segments();
        Ok(config)
    }

    /// Segments go as a whole, so a small store is made of small ones.
    fn fit_segments(&mut self) {
        let Some(store) = &mut self.store else { return };
        let Some(part) = store.retain_size_bytes.map(|bytes| bytes / RETAIN_PARTS) else {
            return;
        };
        let fit = |bytes: &mut u64| *bytes = (*bytes).min(part.max(SEGMENT_BYTES_MIN));
        fit(&mut store.segment_target_size_bytes);
        if let Some(ingest) = &mut self.ingest {
            fit(&mut ingest.segment_flush_size_bytes);
        }
    }

    fn check(&self) -> Result<(), SettingsError> {
        let mut listeners = vec![("api", &self.api)];
        if let Some(ingest) = &self.ingest {
            listeners.push(("ingest.fast", &ingest.fast));
            listeners.push(("ingest.durable", &ingest.durable));
        }
        for (at, (name, endpoint)) in listeners.iter().enumerate() {
            for (other_name, other) in &listeners[..at] {
                if endpoint == other && endpoint.port != 0 {
                    return Err(SettingsError::Conflict(format!(
                        "--{other_name} and --{name} are both {endpoint}: each listener needs a \
                         port of its own"
                    )));
                }
            }
        }
        let paths = self.ingest.as_ref().map(|side| &side.path);
        let paths = paths.zip(self.store.as_ref().map(|side| &side.path));
        if let Some((_, store)) = paths.filter(|(ingest, store)| ingest == store) {
            return Err(SettingsError::Conflict(format!(
                "--ingest.path and --store.path are both {}: each needs a directory of its own",
                store.display()
            )));
        }
        Ok(())
    }
}

fn sites(settings: &Settings) -> Result<Arc<Sites>, SettingsError> {
    let sites = Sites::new(&settings.texts("http.host"), &settings.texts("http.cors-origin"));
    sites.map(Arc::new).map_err(SettingsError::Conflict)
}

fn proxies(settings: &Settings) -> Result<Arc<Proxies>, SettingsError> {
    let proxies = Proxies::new(&settings.texts("http.trusted-proxy"));
    proxies.map(Arc::new).map_err(SettingsError::Conflict)
}

fn io(settings: &Settings) -> net::driver::Wanted {
    use net::driver::Wanted;
    match settings.text("io").as_str() {
        "uring" => Wanted::Uring,
        "posix" => Wanted::Posix,
        _ => Wanted::Auto,
    }
}

fn framing(settings: &Settings) -> Framing {
    match settings.text("ingest.framing").as_str() {
        "octet" => Framing::Octet,
        "nul" => Framing::Nul,
        "auto" => Framing::Auto,
        _ => Framing::Lf,
    }
}

fn topic_mode(settings: &Settings) -> TopicMode {
    if settings.text("ingest.topic-mode") == "dynamic" {
        return TopicMode::Dynamic;
    }
    TopicMode::Static(topic(settings, "ingest.topic", DEFAULT_TOPIC))
}

fn topic(settings: &Settings, name: &str, default: &str) -> Topic {
    let topic =
        Topic::new(settings.text(name).as_bytes()).or_else(|_| Topic::new(default.as_bytes()));
    topic.expect("the default topic is a topic")
}

fn api_stats(settings: &Settings) -> StatsShape {
    match settings.text("http.api-stats").as_str() {
        "array" => StatsShape::Array,
        _ => StatsShape::Object,
    }
}

fn compression(settings: &Settings) -> Compression {
    match settings.number("store.compression-level") {
        0 => Compression::None,
        level => Compression::Zstd(level as u8),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Command, parse};

    impl NodeConfig {
        fn ingest(&self) -> &IngestConfig {
            self.ingest.as_ref().unwrap()
        }

        fn store(&self) -> &StoreConfig {
            self.store.as_ref().unwrap()
        }
    }

    fn config(line: &[&str]) -> Result<NodeConfig, String> {
        let arguments: Vec<_> = ["ingeststore"].iter().chain(line).map(|&s| s.to_owned()).collect();
        match parse(&arguments, &[]) {
            Ok((Command::Node { config, .. }, _)) => Ok(*config),
            Ok(_) => panic!("not a node"),
            Err(stop) => Err(stop.text),
        }
    }

    #[test]
    fn the_defaults_are_those_of_the_predecessor() {
        let config = config(&[]).unwrap();
        assert_eq!(config.api.to_string(), "127.0.0.1:7650");
        assert_eq!(config.ingest().fast.to_string(), "127.0.0.1:7651");
        assert_eq!(config.ingest().durable.to_string(), "127.0.0.1:7652");
        assert_eq!(config.ingest().path, PathBuf::from("data/ingest"));
        assert_eq!(config.ingest().segment_flush_size_bytes, 16 << 20);
        assert_eq!(config.ingest().segment_flush_age, Duration::from_secs(3));
        assert_eq!(config.ingest().segment_pending_timeout, Duration::from_secs(60));
        assert_eq!(config.store().path, PathBuf::from("data/store"));
        assert_eq!(config.store().replication_factor, 1);
        assert_eq!(config.store().segment_target_size_bytes, 128 << 20);
        assert_eq!(config.store().segment_delay, Duration::from_millis(100));
        assert_eq!(config.store().compression, Compression::Zstd(1));
        assert_eq!(config.cores, None);
    }

    #[test]
    fn a_compression_level_is_none_or_one_that_zstd_knows() {
        let of = |text| config(&["--store.compression-level", text]);
        assert_eq!(of("none").unwrap().store().compression, Compression::None);
        assert_eq!(of("19").unwrap().store().compression, Compression::Zstd(19));
        for text in ["0", "20", "-1", "fast", ""] {
            assert!(
                of(text).unwrap_err().contains("none or a whole number from 1 to 19"),
                "{text}"
            );
        }
    }

    #[test]
    fn listen_gives_the_host_where_none_is_named() {
        let config =
            config(&["--listen", "::1", "--api=tcp://0.0.0.0", "--ingest.fast=:9"]).unwrap();
        assert_eq!(config.api.to_string(), "0.0.0.0:7650");
        assert_eq!(config.ingest().fast.to_string(), "[::1]:9");
        for (listen, api) in [
            ("::", "[::]:7650"),
            ("[::]", "[::]:7650"),
            ("[::1]", "[::1]:7650"),
            ("tcp://[::1]", "[::1]:7650"),
            ("localhost", "localhost:7650"),
        ] {
            assert_eq!(self::config(&["--listen", listen]).unwrap().api.to_string(), api);
        }
        for listen in ["", "[::1]:7650", ":7650", "a b", "[::"] {
            assert!(self::config(&["--listen", listen]).unwrap_err().contains("--listen"));
        }
    }

    #[test]
    fn retention_has_its_defaults_and_a_small_store_small_segments() {
        let by_default = config(&[]).unwrap();
        assert_eq!(by_default.store().segment_retain, Duration::from_secs(7 * 86_400));
        assert_eq!(by_default.store().segment_purge, Duration::from_secs(86_400));
        assert_eq!(by_default.store().retain_size_bytes, None);
        assert_eq!(by_default.disk_free_min_bytes, None);
        let small = config(&["--store.retain-size=80MiB", "--disk.free-min", "2GiB"]).unwrap();
        assert_eq!(small.store().segment_target_size_bytes, 10 << 20);
        assert_eq!(small.ingest().segment_flush_size_bytes, 10 << 20);
        assert_eq!(small.disk_free_min_bytes, Some(2 << 30));
        assert!(config(&["--store.segment-retain=0s"]).is_err());
    }

    #[test]
    fn counts_of_entries_are_an_object_unless_a_flag_or_a_file_says_array() {
        let of = |line: &[&str]| config(line).map(|config| config.http.api_stats);
        assert_eq!(of(&[]), Ok(StatsShape::Object));
        assert_eq!(of(&["--http.api-stats", "array"]), Ok(StatsShape::Array));
        assert_eq!(of(&["-http.api-stats=object"]), Ok(StatsShape::Object));
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("oklogd.toml");
        let file = path.display().to_string();
        std::fs::write(&path, "'http.api-stats' = 'array'\n").unwrap();
        assert_eq!(of(&["--config", &file]), Ok(StatsShape::Array));
        assert_eq!(of(&["--config", &file, "--http.api-stats=object"]), Ok(StatsShape::Object));
        std::fs::write(&path, "'http.api-stats' = 'list'\n").unwrap();
        for line in [&["--config", &file][..], &["--http.api-stats", "Array"]] {
            let told = of(line).unwrap_err();
            assert!(told.contains("http.api-stats") && told.contains("object, array"), "{told}");
        }
    }

    #[test]
    fn queries_are_bounded_by_number_and_by_memory() {
        let queries = |line: &[&str]| config(line).unwrap().query.queries_max();
        assert_eq!(queries(&[]), 256);
        assert_eq!(queries(&["--query.max-concurrent=5"]), 5);
        assert_eq!(queries(&["--query.memory-max=8MiB"]), 16);
    }

    #[test]
    fn values_that_do_not_fit_each_other_are_refused() {
        assert!(config(&["--api=:7651"]).unwrap_err().contains("--ingest.fast"));
        assert!(config(&["--store.path=data/ingest"]).unwrap_err().contains("--store.path"));
        assert!(config(&["--api=:0", "--ingest.fast=:0", "--ingest.durable=:0"]).is_ok());
    }
}
