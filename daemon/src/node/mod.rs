//! The node: shards, keeper, store work, search and HTTP, wired together.

use std::fmt;

use crate::config::NodeConfig;

/// Why a node did not start or had to stop.
#[derive(Debug)]
pub(crate) enum NodeError {
    /// This program was built without the node runtime.
    NoRuntime,
}

impl fmt::Display for NodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRuntime => f.write_str("this build has no node runtime"),
        }
    }
}

impl std::error::Error for NodeError {}

/// Runs a node until SIGINT or SIGTERM, or until it cannot go on.
pub(crate) fn run(config: NodeConfig) -> Result<(), NodeError> {
    tracing::debug!(?config, "configuration");
    Err(NodeError::NoRuntime)
}
