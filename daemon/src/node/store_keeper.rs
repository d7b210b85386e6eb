//! The thread that turns [`StoreKeeper`] on a node that takes no records, and tells what it sees.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use engine::node::keeper::{SpaceParts, StoreKeeper};

use super::common::Common;
use super::keeper_words;
use super::vitals::Role;

/// Starts it; it ends with the work of the store.
pub(super) fn spawn(common: Arc<Common>, space: SpaceParts) -> io::Result<JoinHandle<()>> {
    let pulse = common.vitals.pulse("keeper", Role::StoreKeeper);
    std::thread::Builder::new().name("keeper".into()).spawn(move || {
        let mut keeper = StoreKeeper::new(Arc::clone(&common.doors), space);
        while !common.work_ends.wait(common.until(keeper.next_us() / 1000)) {
            pulse.begin();
            let ground = common.grounds.look();
            for happened in keeper.turn(common.clock.now(), ground) {
                keeper_words::tell(&happened, common.is(), &common.metrics);
            }
            pulse.rest();
        }
    })
}
