//! What `/_clusterstate` shows: who is there, as the node that is asked knows it.

use serde::Serialize;

/// The whole answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClusterState {
    /// [`Member::id`] of the node that answers; it is among `nodes`.
    #[serde(rename = "self")]
    pub own_id: String,
    /// Of the cluster.
    pub name: String,
    /// Whoever reaches its ports is believed to be a member.
    pub insecure: bool,
    /// Everybody who was met.
    pub nodes: Vec<Member>,
    /// Groups of store segments with the same holders.
    pub volumes: VolumeCounts,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Member {
    /// That of its ingest directory where it takes records, else that of its store directory: 32
    /// hexadecimal digits.
    pub id: String,
    /// How others name it: `host:port`. Answers name it so where they lack what it has.
    pub address: String,
    /// Where it answers HTTP, `host:port`.
    pub api: String,
    /// What it is: takes records, keeps them, or both.
    pub roles: Vec<NodeRole>,
    /// How it is.
    pub state: MemberState,
    /// How often the directory that its id is of was taken into use.
    pub boot: u64,
    /// Its program's.
    pub version: String,
    /// Text of records that are not in stores yet, memory of shards included.
    pub backlog_bytes: u64,
    /// On the fullest of its disks.
    pub disk_free_bytes: u64,
    /// Below it everything that was acknowledged is on the disks of as many stores as keep a copy; `None`:
    /// that is not known of any ULID.
    pub watermark: Option<String>,
}

/// A side of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeRole {
    /// It takes records.
    Ingest,
    /// It keeps them.
    Store,
}

/// How a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MemberState {
    /// It answers.
    Up,
    /// It is being emptied.
    Draining,
}

/// Volumes that are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct VolumeCounts {
    /// All of them.
    pub total: u64,
    /// With fewer live copies than they should have.
    pub under: u64,
    /// With more.
    pub over: u64,
    /// On their way to another store.
    pub moving: u64,
}
