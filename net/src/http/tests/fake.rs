//! A node in memory, and a server in front of it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use bytes::Bytes;
use engine::follow::{StreamFormat, Wanted};
use engine::search::testing::{TestPart, TestRecord};
use engine::search::{Missing, Searcher, SearcherOptions, Snapshot};
use engine::topic::Topic;
use engine::ulid::Ulid;
use tokio::sync::{oneshot, watch};

use super::super::{HttpOptions, serve};
use crate::backend::{
    AppendError, Appended, Appender, Backend, ClusterState, DrainState, FollowError, Following,
    Health, LocalView, Member, MemberState, NodeRole, Pending, SegmentOverview, View, VolumeCounts,
};
use crate::follow::Hub;
use crate::metrics::NodeMetrics;
use crate::shard::Placement;

/// When the records of the tests were written.
pub(super) const BASE_MS: u64 = 1_700_000_000_000;

/// What tests set and look at.
#[derive(Default)]
pub(in crate::http) struct Inner {
    pub(in crate::http) records: Mutex<Vec<TestRecord>>,
    /// Parts beside the records.
    pub(in crate::http) parts: Mutex<Vec<TestPart>>,
    pub(in crate::http) missing: Mutex<Vec<Missing>>,
    pub(in crate::http) batches: Mutex<Vec<usize>>,
    /// Appends fail once this many records are held.
    pub(in crate::http) fail_at: Mutex<Option<(usize, AppendError)>>,
    pub(in crate::http) fail_durable: Mutex<Option<AppendError>>,
    /// There, it keeps lines in place of appending them, as a shard does that may not read.
    pub(in crate::http) kept: Mutex<Option<Vec<Bytes>>>,
    /// Why nothing can be taken, for those who wait.
    pub(in crate::http) trouble: watch::Sender<Option<AppendError>>,
    pub(in crate::http) syncs: AtomicU64,
    pub(in crate::http) unready: AtomicBool,
}

pub(super) struct Fake {
    pub(super) inner: Arc<Inner>,
    searcher: Arc<Searcher>,
    hub: Hub,
    metrics: Arc<NodeMetrics>,
}

/// A node that holds these, for those who need no server.
pub(in crate::http) fn backend(inner: &Arc<Inner>) -> Arc<dyn Backend> {
    let searcher = searcher();
    Arc::new(Fake::new(Arc::clone(inner), searcher, Arc::new(NodeMetrics::new(1))))
}

fn searcher() -> Searcher {
    Searcher::start(SearcherOptions {
        threads: 2,
        node: "test".to_owned(),
        caches: Arc::default(),
        on_thread_start: Arc::new(|_| {}),
    })
    .unwrap()
}

impl Fake {
    fn new(inner: Arc<Inner>, searcher: Searcher, metrics: Arc<NodeMetrics>) -> Self {
        let hub = Hub::new(Placement::new(1).unwrap());
        Self { inner, searcher: Arc::new(searcher), hub, metrics }
    }
}

pub(in crate::http) fn topic(name: &str) -> Topic {
    Topic::new(name.as_bytes()).unwrap()
}

impl Inner {
    pub(super) fn push(&self, topic: Topic, record: &[u8]) -> Result<Ulid, AppendError> {
        let mut records = self.records.lock().unwrap();
        if let Some((at, error)) = &*self.fail_at.lock().unwrap()
            && records.len() >= *at
        {
            return Err(error.clone());
        }
        let n = records.len() as u64;
        let id = Ulid::from_parts(BASE_MS + n, 1, n);
        records.push((id, topic, record.to_vec()));
        Ok(id)
    }
}

impl Backend for Fake {
    fn pin(&self) -> Pending<Box<dyn View>> {
        let records = self.inner.records.lock().unwrap().clone();
        let mut snapshot = Snapshot::default();
        if !records.is_empty() {
            snapshot.parts.push(Arc::new(TestPart::new(&records, 10)));
        }
        for part in self.inner.parts.lock().unwrap().iter() {
            snapshot.parts.push(Arc::new(part.clone()));
        }
        snapshot.missing.clone_from(&self.inner.missing.lock().unwrap());
        let view: Box<dyn View> = Box::new(LocalView::new(Arc::clone(&self.searcher), snapshot));
        Box::pin(std::future::ready(view))
    }

    fn follow(&self, wanted: Wanted, format: StreamFormat) -> Result<Following, FollowError> {
        Ok(self.hub.follow(wanted, format))
    }

    fn newest_ms(&self) -> u64 {
        0
    }

    fn appender(&self, topic: Option<Topic>, _: bool) -> Result<Box<dyn Appender>, AppendError> {
        let topic = topic.unwrap_or_else(|| self::topic("default"));
        Ok(Box::new(FakeAppender { inner: Arc::clone(&self.inner), topic }))
    }

    fn max_record_size_bytes(&self) -> usize {
        1 << 20
    }

    fn health(&self) -> Health {
        Health::default()
    }

    fn readiness(&self) -> Health {
        let failing = self.inner.unready.load(SeqCst);
        let reasons = if failing { vec!["the disk is full".to_owned()] } else { Vec::new() };
        Health { failing, reasons }
    }

    fn segment_state(&self) -> SegmentOverview {
        SegmentOverview::default()
    }

    fn cluster_state(&self) -> ClusterState {
        let member = Member {
            id: "5b0c8f3a94e1d27760b1c2d3e4f50617".into(),
            address: "127.0.0.1:7650".into(),
            api: "127.0.0.1:7650".into(),
            roles: vec![NodeRole::Ingest, NodeRole::Store],
            state: MemberState::Up,
            boot: 1,
            version: "0.1.0".into(),
            backlog_bytes: 0,
            disk_free_bytes: 1 << 40,
            watermark: None,
        };
        let (own_id, volumes) = (member.id.clone(), VolumeCounts::default());
        ClusterState {
            own_id,
            name: "oklogd".into(),
            insecure: false,
            nodes: vec![member],
            volumes,
        }
    }

    fn drain(&self) -> DrainState {
        self.drain_state().unwrap_or_default()
    }

    fn drain_state(&self) -> Option<DrainState> {
        Some(DrainState { shards: 1, ..DrainState::default() })
    }

    fn metrics_text(&self) -> String {
        self.metrics.encode()
    }
}

struct FakeAppender {
    inner: Arc<Inner>,
    topic: Topic,
}

impl FakeAppender {
    fn take(&self, lines: &[u8]) -> Result<Appended, AppendError> {
        self.inner.batches.lock().unwrap().push(lines.len());
        let lines = lines.strip_suffix(b"\n").expect("whole lines");
        let ids = lines
            .split(|&b| b == b'\n')
            .map(|line| self.inner.push(self.topic.clone(), line))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Appended { records: ids.len() as u64, first: ids[0], last: ids[ids.len() - 1] })
    }
}

impl Appender for FakeAppender {
    fn append(&mut self, lines: Bytes) -> Pending<Result<Appended, AppendError>> {
        if let Some(kept) = &mut *self.inner.kept.lock().unwrap() {
            kept.push(lines);
            return Box::pin(std::future::pending());
        }
        Box::pin(std::future::ready(self.take(&lines)))
    }

    fn trouble(&self) -> Pending<AppendError> {
        let inner = Arc::clone(&self.inner);
        Box::pin(async move {
            let mut trouble = inner.trouble.subscribe();
            let trouble = trouble.wait_for(Option::is_some).await.expect("the node outlives it");
            trouble.clone().expect("waited for")
        })
    }

    fn durable(&mut self) -> Pending<Result<(), AppendError>> {
        self.inner.syncs.fetch_add(1, SeqCst);
        let failure = self.inner.fail_durable.lock().unwrap().clone();
        Box::pin(std::future::ready(failure.map_or(Ok(()), Err)))
    }
}

/// A running server; stops when dropped.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) inner: Arc<Inner>,
    pub(super) metrics: Arc<NodeMetrics>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(super) fn start() -> Self {
        Self::with(HttpOptions::default())
    }

    pub(super) fn with(options: HttpOptions) -> Self {
        let metrics = Arc::new(NodeMetrics::new(1));
        let inner = Arc::new(Inner::default());
        let backend = Arc::new(Fake::new(Arc::clone(&inner), searcher(), Arc::clone(&metrics)));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        let (stop, stopped) = oneshot::channel();
        let counted = Arc::clone(&metrics);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let stop = async { drop(stopped.await) };
                serve(listener, (backend, counted), options, stop).await;
            });
        });
        Self { address, inner, metrics, stop: Some(stop), thread: Some(thread) }
    }

    /// A server that holds these lines, a millisecond apart.
    pub(super) fn with_lines(lines: &[&str]) -> Self {
        let server = Self::start();
        for line in lines {
            server.inner.push(topic("default"), line.as_bytes()).unwrap();
        }
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the server panicked");
        }
    }
}
