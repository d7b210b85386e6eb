//! What the node says of itself as a member of a cluster that it is alone in.
//!
//! Invariants: it waits for no lock that somebody holds while the disk works.

use std::collections::BTreeSet;

use engine::identity::Identity;
use engine::node::StoreSide;
use net::backend::{ClusterState, Member, MemberState, NodeRole, VolumeCounts};

use super::common::{Common, unstored_bytes};

/// The name of a cluster that was given none.
const DEFAULT_NAME: &str = "oklogd";

/// Asked by whoever wants to know who is there; `ingester`: who its ingest side is.
pub(super) fn state(common: &Common, ingester: Option<Identity>) -> ClusterState {
    let node = &common.node;
    let store = node.store.as_ref().and_then(|side| side.catalogue.directory().identity());
    let identity = ingester.or(store);
    let id = identity.map(|identity| identity.id.to_string()).unwrap_or_default();
    let roles = [
        node.ingest.as_ref().map(|_| NodeRole::Ingest),
        node.store.as_ref().map(|_| NodeRole::Store),
    ];
    let memory_bytes = common.metrics.shard_memory_bytes.get();
    let backlog_bytes = node.ingest.as_ref().map_or(0, |side| unstored_bytes(side, memory_bytes));
    let is_draining = common.draining.is_begun();
    let member = Member {
        id: id.clone(),
        address: common.address.clone(),
        api: common.address.clone(),
        roles: roles.into_iter().flatten().collect(),
        state: if is_draining { MemberState::Draining } else { MemberState::Up },
        boot: identity.map_or(0, |identity| identity.boot),
        version: env!("CARGO_PKG_VERSION").into(),
        backlog_bytes: u64::try_from(backlog_bytes).unwrap_or(0),
        disk_free_bytes: u64::try_from(common.metrics.disk_free_bytes.get()).unwrap_or(0),
        // It is not told before it is promised to whoever counts on it.
        watermark: None,
    };
    ClusterState {
        own_id: id,
        name: DEFAULT_NAME.into(),
        // Nobody is believed to be a member.
        insecure: false,
        nodes: vec![member],
        volumes: node
            .store
            .as_ref()
            .map_or_else(VolumeCounts::default, |side| volumes(side, common.is_replica_missing())),
    }
}

fn volumes(side: &StoreSide, is_replica_missing: bool) -> VolumeCounts {
    let segments = side.catalogue.snapshot();
    let ids: BTreeSet<_> = segments
        .iter()
        .filter_map(|segment| segment.meta().volume)
        .map(|volume| volume.id)
        .collect();
    let total = ids.len() as u64;
    // The only copies are its own.
    VolumeCounts { total, under: if is_replica_missing { total } else { 0 }, over: 0, moving: 0 }
}
