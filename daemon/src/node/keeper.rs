//! The keeper's thread: what shards ask comes in, files are opened for their rings, and what happened
//! is told and counted. What is done, and when, is [`engine::node::keeper`]'s to decide.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use engine::ingest::segment::Segment;
use engine::node::keeper::{Effect, Event, Surroundings};
use engine::pulse::Pulse;
use engine::storage::{DiskWatch, Storage};
use net::shard::Keeper;
use net::shard::inbox::Message;

use super::common::Common;
use super::keeper_words;
use super::lent;
use crate::lock::Inode;

enum Job {
    Event(Event),
    Stop,
}

/// What the keeper's thread works with.
pub(super) struct KeeperParts {
    pub(super) common: Arc<Common>,
    pub(super) keeper: engine::node::keeper::Keeper,
    pub(super) storage: Arc<dyn Storage>,
    pub(super) pulse: Arc<Pulse>,
    pub(super) disk: Arc<DiskWatch>,
}

/// The shards' side.
pub(super) struct KeeperHandle {
    jobs: Sender<Job>,
}

impl Keeper for KeeperHandle {
    fn want_segment(&self, shard: usize) {
        self.leave(Job::Event(Event::WantSegment(shard)));
    }

    fn seal(&self, segment: Arc<Segment>, len_bytes: u64) {
        self.leave(Job::Event(Event::Seal(segment, len_bytes)));
    }

    fn abandon(&self, segment: Arc<Segment>, len_bytes: u64, error: io::Error) {
        self.leave(Job::Event(Event::Abandon(segment, len_bytes, error)));
    }
}

impl KeeperHandle {
    /// Looks from now on whether a shard's tail file is where it was.
    pub(super) fn watch_tail(&self, shard: usize, path: PathBuf, inode: Inode) {
        self.leave(Job::Event(Event::Tail(shard, path, inode.identity())));
    }

    /// Ends the thread after everything that was asked before.
    pub(super) fn stop(&self) {
        self.leave(Job::Stop);
    }

    fn leave(&self, job: Job) {
        // The keeper outlives its shards; a job after its end has nobody to serve.
        let _ = self.jobs.send(job);
    }
}

/// Starts the keeper's thread.
pub(super) fn spawn(parts: KeeperParts) -> io::Result<(Arc<KeeperHandle>, JoinHandle<()>)> {
    let (sender, jobs) = channel();
    let worker = Worker { parts, jobs, direct_refused: false };
    let thread = std::thread::Builder::new().name("keeper".into()).spawn(move || worker.run())?;
    Ok((Arc::new(KeeperHandle { jobs: sender }), thread))
}

struct Worker {
    parts: KeeperParts,
    jobs: Receiver<Job>,
    direct_refused: bool,
}

/// Directories, names, and what shards have stamped.
impl Surroundings for Common {
    fn ground(&self) -> [Option<String>; 2] {
        self.grounds.look()
    }

    fn has_lost_name(&self, path: &Path, identity: u128) -> bool {
        Inode::from_identity(identity).has_lost(path)
    }

    fn stamped_ms(&self) -> u64 {
        self.newest_stamped_ms()
    }
}

impl Worker {
    fn run(mut self) {
        let pulse = Arc::clone(&self.parts.pulse);
        loop {
            let now_us = self.parts.common.clock.now().monotonic_us;
            let pause = Duration::from_micros(self.parts.keeper.next_us().saturating_sub(now_us));
            let job = self.jobs.recv_timeout(pause);
            pulse.begin();
            match job {
                Ok(Job::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(Job::Event(event)) => self.take(event),
                Err(RecvTimeoutError::Timeout) => {}
            }
            self.turn();
            pulse.rest();
        }
        pulse.rest();
        let KeeperParts { keeper, common, .. } = &mut self.parts;
        keeper.end(common.clock.now(), &**common);
        self.tell();
    }

    fn take(&mut self, event: Event) {
        let KeeperParts { keeper, common, .. } = &mut self.parts;
        if common.is_stopping() {
            keeper.note_stopping();
        }
        keeper.take(event, common.clock.now(), &**common);
        self.tell();
    }

    fn turn(&mut self) {
        let KeeperParts { keeper, common, .. } = &mut self.parts;
        keeper.turn(common.clock.now(), &**common);
        self.tell();
        while let Some(effect) = self.parts.keeper.next_effect() {
            self.carry_out(effect);
        }
    }

    fn tell(&mut self) {
        for happened in self.parts.keeper.take_happened() {
            let common = &self.parts.common;
            keeper_words::tell(&happened, common.is(), &common.metrics);
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        let seats = self.parts.common.placement.seats();
        match effect {
            Effect::LostSegment(shard, id) => seats[shard].inbox.send(Message::LostSegment(id)),
            Effect::LostTail(shard) => seats[shard].inbox.send(Message::LostTail),
            Effect::Lend { shard, segment } => {
                let event = self.lend(shard, segment);
                self.take(event);
            }
        }
    }

    /// Opens a segment for a shard, and for the keeper.
    fn lend(&mut self, shard: usize, segment: Arc<Segment>) -> Event {
        let (path, storage) = (segment.path(), &self.parts.storage);
        let for_writing = || lent::for_writing(&path, &mut self.direct_refused);
        let file = (&*path, segment.file_len());
        let opened = lent::open(&**storage, &self.parts.disk, file, for_writing);
        let opened = opened.and_then(|(source, file)| {
            let identity = Inode::of(&file.metadata()?).identity();
            Ok((source, file, identity))
        });
        match opened {
            Ok((source, file, identity)) => {
                let message = Message::Segment(Arc::clone(&segment), file.into());
                self.parts.common.placement.seats()[shard].inbox.send(message);
                Event::Lent { shard, segment, source, identity }
            }
            Err(error) => Event::NotLent { shard, segment, error },
        }
    }
}
