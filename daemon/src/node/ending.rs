//! How a node stops: the main thread turns [`Ending`], has done what that asks for, and has the last word.
//!
//! Invariants: it ends when [`Ending`] says so, whatever hangs: what does not end by itself is left to the
//! end of the process, as a kill would. What the disk may keep for ever is done on a thread of its own. The
//! directories stay locked for as long as a thread may still write to them.

use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use engine::ingest::promises::NotOnDisk;
use engine::node::ending::{Done, Effect, Ending, Failure, LastWord, Lost, Shards, Work};
use engine::storage::OsStorage;
use net::shard::Placement;
use net::shard::inbox::Message;

use super::common::Common;
use super::ground::records_not_found;
use super::read_again::is_lost;
use super::{Node, NodeError, store_work};

/// How long to look at files that have their names, whether they have their lengths: well below what the
/// whole look may take.
const LENGTHS_WITHIN: Duration = Duration::from_secs(1);
/// Time between looks whether a thread has ended.
const BEAT: Duration = Duration::from_millis(2);

impl Node {
    /// Stops in good order. An error: not everything that was taken is on disk.
    pub(super) fn shut_down(self) -> Result<(), NodeError> {
        self.common.stopping.store(true, Ordering::Release);
        let timeout_ms = self.config.shutdown_timeout.as_millis() as u64;
        let now_ms = self.common.now_ms();
        let doors = Arc::clone(&self.common.doors);
        let mut ending = Ending::start(&self.common.node, doors, timeout_ms, now_ms);
        let mut stop = Stop::of(self);
        let word = loop {
            while let Some(effect) = ending.next_effect() {
                stop.carry_out(effect, ending.deadline_ms());
            }
            let now_ms = stop.node.common.now_ms();
            while let Some(done) = stop.look() {
                ending.take(done, now_ms);
            }
            ending.turn(&stop, now_ms);
            for work in ending.take_not_in_time() {
                stop.leave(work);
            }
            if let Some(word) = ending.last_word() {
                break word;
            }
            std::thread::park_timeout(BEAT);
        };
        if !word.is_whole {
            // The process ends now, and with it the locks.
            std::mem::forget(stop.node.locks);
        }
        tell(&word)
    }
}

/// A node that stops.
struct Stop {
    node: Node,
    /// What is under way, and who does it.
    under_way: Option<(Work, Option<Vec<JoinHandle<()>>>)>,
    sender: Sender<Done>,
    done: Receiver<Done>,
}

impl Shards for Stop {
    fn held_bytes(&self) -> u64 {
        self.node.common.metrics.shard_memory_bytes.get().unsigned_abs()
    }

    fn not_on_disk(&self) -> Vec<NotOnDisk> {
        not_on_disk(&self.node.common.placement)
    }
}

fn not_on_disk(placement: &Placement) -> Vec<NotOnDisk> {
    placement.seats().iter().map(net::shard::placement::Seat::unsynced).collect()
}

impl Stop {
    fn of(node: Node) -> Self {
        let (sender, done) = channel();
        Self { node, under_way: None, sender, done }
    }

    fn carry_out(&mut self, effect: Effect, deadline_ms: u64) {
        match effect {
            Effect::CancelCompaction => {
                if let Some(store) = &self.node.store {
                    store.compaction.cancel.store(true, Ordering::Release);
                }
            }
            Effect::CancelStore => {
                if let Some(store) = &self.node.store {
                    store.cancel.store(true, Ordering::Release);
                }
            }
            Effect::Begin(work) => {
                let hands = self.begin(work, deadline_ms);
                self.under_way = Some((work, hands));
            }
        }
    }

    /// Begins something; those who end when it is done, nobody where there is nothing to do. `None`: its
    /// end comes through the channel.
    fn begin(&mut self, work: Work, deadline_ms: u64) -> Option<Vec<JoinHandle<()>>> {
        let node = &mut self.node;
        match work {
            Work::Followers => {
                if let Some(hub) = &node.common.hub {
                    hub.stop();
                }
                Some(node.follow_thread.take().into_iter().collect())
            }
            Work::Requests => Some(node.control.stop().into_iter().collect()),
            Work::Shards => {
                for seat in node.common.placement.seats() {
                    seat.inbox.send(Message::ShutDown);
                }
                let shards = node.taking.as_mut().map(|taking| &mut taking.shards);
                Some(shards.map(std::mem::take).unwrap_or_default())
            }
            Work::Keeper => {
                let Some(taking) = &mut node.taking else { return Some(Vec::new()) };
                taking.keeper.stop();
                Some(taking.keeper_thread.take().into_iter().collect())
            }
            Work::Store => {
                node.common.work_ends.set();
                let drain = node.store.clone().and_then(|parts| {
                    spawn("drain", move || store_work::drain(&parts, deadline_ms))
                });
                let threads = std::mem::take(&mut node.work_threads);
                Some(threads.into_iter().chain(drain).collect())
            }
            Work::Tidy => {
                let common = Arc::clone(&node.common);
                let tidy = spawn("let-go", move || store_work::let_go_of_files(&common));
                Some(tidy.into_iter().collect())
            }
            Work::Ground | Work::Stamps | Work::Waiting | Work::Unsynced | Work::Names => {
                self.look_or_write(work);
                None
            }
        }
    }

    /// Does what the disk may keep for ever.
    fn look_or_write(&self, work: Work) {
        let common = Arc::clone(&self.node.common);
        let directory = self.node.config.ingest.as_ref().map(|side| side.path.clone());
        let early = self.sender.clone();
        self.apart(work, move || match work {
            Work::Stamps => {
                close_stamps(&common);
                Done::Work(work)
            }
            Work::Waiting => {
                note_waiting(&common);
                Done::Work(work)
            }
            Work::Unsynced => {
                let shards = not_on_disk(&common.placement);
                let count = |path| Lost::count(&OsStorage, path, &shards);
                Done::Unsynced(directory.as_deref().map_or_else(Lost::default, count))
            }
            Work::Names => {
                let found = records_not_found(&common);
                // Nobody may be waiting any more.
                let _ = early.send(Done::Listed(found.records));
                let until = Instant::now() + LENGTHS_WITHIN;
                Done::Names(found.look_on(&is_lost, &|| Instant::now() < until))
            }
            _ => {
                common.doors.set_taken_away(common.grounds.look());
                Done::Work(work)
            }
        });
    }

    /// Has something done on a thread of its own.
    fn apart(&self, work: Work, what: impl FnOnce() -> Done + Send + 'static) {
        let sender = self.sender.clone();
        let what = move || {
            // Nobody may be waiting any more.
            let _ = sender.send(what());
        };
        let begun = std::thread::Builder::new().name("last-writes".into()).spawn(what);
        if let Err(error) = begun {
            tracing::warn!(?work, "cannot be begun: the system refused a thread: {error}");
        }
    }

    /// What has been done meanwhile.
    fn look(&mut self) -> Option<Done> {
        let is_ended = |(_, hands): &mut (Work, Option<Vec<JoinHandle<()>>>)| {
            hands.as_ref().is_some_and(|hands| hands.iter().all(JoinHandle::is_finished))
        };
        if let Some((work, hands)) = self.under_way.take_if(is_ended) {
            for hand in hands.into_iter().flatten() {
                // It has ended; a panic would have ended the process.
                let _ = hand.join();
            }
            return Some(Done::Work(work));
        }
        self.done.try_recv().ok()
    }

    /// It was not done in time, and is waited for no more.
    fn leave(&mut self, work: Work) {
        let Some((_, hands)) = self.under_way.take_if(|(under_way, _)| *under_way == work) else {
            return;
        };
        for hand in hands.into_iter().flatten().filter(|hand| !hand.is_finished()) {
            tracing::warn!(thread = hand.thread().name(), "did not end in time");
        }
    }
}

/// `None`: the system refuses a thread, and it is not done.
fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Option<JoinHandle<()>> {
    std::thread::Builder::new().name(name.into()).spawn(work).ok()
}

/// The next life need not start ahead of the clock.
fn close_stamps(common: &Common) {
    let Some(side) = &common.node.ingest else { return };
    let mut stamps = side.stamps.lock().unwrap_or_else(PoisonError::into_inner);
    if let Err(error) = stamps.close(common.newest_stamped_ms()) {
        tracing::warn!("the mark of stamps cannot be written: {error}");
    }
}

/// The next life knows what waits for it.
fn note_waiting(common: &Common) {
    let Some(side) = &common.node.ingest else { return };
    if let Err(error) = side.registry.note_waiting() {
        tracing::warn!("{error}; segments that vanish before the next start are not missed");
    }
}

/// Tells how it went; an error where something is lost.
fn tell(word: &LastWord) -> Result<(), NodeError> {
    let (seconds, waiting_bytes) = (word.spent_ms as f64 / 1e3, word.waiting_bytes);
    if word.lost.records > 0 {
        let rest = if word.not_found == Some(0) {
            "; what else waits is on disk and is taken up at the next start"
        } else {
            ""
        };
        tracing::error!(
            seconds,
            waiting_bytes,
            not_on_disk = word.lost.records,
            "stopped, but records that were taken are not on disk: the disk took no more in \
             time{rest}"
        );
    }
    match word.not_found {
        Some(0) => {}
        Some(not_found) => {
            tracing::error!(seconds, not_found, "stopped, but not all that was taken is there");
        }
        None => tracing::error!(
            seconds,
            waiting_bytes,
            "stopped, but whether all that was taken is there is not known: the disk did not say \
             in time"
        ),
    }
    if word.lost.awaited_records > 0 {
        tracing::warn!(
            awaited_records = word.lost.awaited_records,
            "records are not on disk whose senders were not told that they are: who counts \
             acknowledgements sends them again"
        );
    }
    match word.failure() {
        None => {}
        Some(Failure::NotOnDisk(records)) => return Err(NodeError::NotOnDisk(records)),
        Some(Failure::TakenAway(records)) => return Err(NodeError::TakenAway(records)),
        Some(Failure::NotLookedUp) => return Err(NodeError::NotLookedUp),
    }
    let words = if word.is_all_stored() {
        "stopped; nothing waits, all is in the store"
    } else {
        "stopped; what waits is on disk and is taken up at the next start"
    };
    tracing::info!(seconds, waiting_bytes, "{words}");
    Ok(())
}
