//! Between the thread that reads standard input and the task that sends: lines in order, in memory
//! or in the spool.
//!
//! Invariants: the reader waits while there is no room; the sender never waits. Where an unfinished
//! line is followed by the start of another (two lives share a spool, or a damaged entry lay
//! between), an LF keeps them apart.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use engine::spool::{AppendError, Entry, NamesJob, NamesSeen, Spool};
use tokio::sync::{Notify, watch};

use super::Waiting;
use super::buffer::{Buffer, Pushed};
use super::limits::FORWARD_TELL_INTERVAL;
use super::metrics::ForwardMetrics;
use super::piece::Piece;

/// How long the reader waits before it tries again to write to a spool that refused.
const SPOOL_RETRY: Duration = Duration::from_secs(1);

/// Pieces between reader and sender.
pub(crate) struct PieceQueue {
    state: Mutex<State>,
    /// For the reader: there may be room.
    room: Condvar,
    /// For the sender: there may be something, or the end.
    pub(crate) news: Notify,
    /// Whether the reader will bring nothing more.
    over: watch::Sender<bool>,
    metrics: Arc<ForwardMetrics>,
}

enum Backing {
    Memory { buffer: Buffer, drops: bool },
    Spool(Box<Spool>),
}

struct State {
    backing: Backing,
    /// The reader will bring nothing more.
    ended: bool,
    /// A signal came: what is left at the end of the input stays in the spool.
    stopping: bool,
    /// The time for reading is over: what was read is taken, whatever room there is.
    closing: bool,
    input_error: Option<io::Error>,
    /// Whether more could have been read.
    has_unread: bool,
    /// Whether the last piece that was taken left its line unfinished, and its entry.
    torn: bool,
    last_entry: Option<u64>,
    /// A piece that waits behind a joint.
    held: Option<Piece>,
    /// Lines that the spool could not take in the end.
    unplaced_lines: u64,
    told: Told,
}

/// What the operator was told.
#[derive(Default)]
struct Told {
    spool_full: bool,
    spool_failing: bool,
    mark_failing: bool,
    sync_failing: bool,
    read_failing: bool,
    taken_away: bool,
    dropped_at: Option<Instant>,
    dropped_lines: u64,
    dropped_total: u64,
}

impl PieceQueue {
    /// An empty queue, or what is in the spool.
    pub(crate) fn new(waiting: Waiting, metrics: Arc<ForwardMetrics>) -> Self {
        let backing = match waiting {
            Waiting::Block { bytes_max } => {
                Backing::Memory { buffer: Buffer::new(bytes_max), drops: false }
            }
            Waiting::DropOldest { bytes_max } => {
                Backing::Memory { buffer: Buffer::new(bytes_max), drops: true }
            }
            Waiting::Spool(spool) => Backing::Spool(spool),
        };
        let state = State {
            backing,
            ended: false,
            stopping: false,
            closing: false,
            input_error: None,
            has_unread: false,
            torn: false,
            last_entry: None,
            held: None,
            unplaced_lines: 0,
            told: Told::default(),
        };
        let queue = Self {
            state: Mutex::new(state),
            room: Condvar::new(),
            news: Notify::new(),
            over: watch::Sender::new(false),
            metrics,
        };
        queue.measure(&queue.lock());
        queue
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a piece; blocks until there is room or the time for reading is over.
    pub(crate) fn push(&self, mut piece: Piece) {
        let mut state = self.lock();
        loop {
            let (outcome, wait) = state.try_push(piece, &self.metrics);
            match outcome {
                None => break,
                Some(again) if state.closing => {
                    state.unplaced_lines += again.lines.max(1);
                    break;
                }
                Some(again) => piece = again,
            }
            self.metrics.input_blocked.set(1);
            state = match wait {
                Some(time) => {
                    self.room.wait_timeout(state, time).unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.room.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
        self.metrics.input_blocked.set(0);
        self.measure(&state);
        drop(state);
        self.news.notify_one();
    }

    /// The reader is done; `has_unread`: although there is more.
    pub(crate) fn end(&self, error: Option<io::Error>, has_unread: bool) {
        let mut state = self.lock();
        state.ended = true;
        state.has_unread = has_unread;
        state.input_error = error;
        state.told.tell_dropped(true);
        drop(state);
        self.over.send_replace(true);
        self.news.notify_one();
    }

    /// A signal came.
    pub(crate) fn stop(&self) {
        self.lock().stopping = true;
        self.news.notify_one();
    }

    /// The time for reading is over: the reader waits for no room any more.
    pub(crate) fn close_input(&self) {
        self.lock().closing = true;
        self.room.notify_all();
    }

    /// Whether the reader will bring nothing more.
    pub(crate) fn has_ended(&self) -> bool {
        *self.over.borrow()
    }

    /// Resolves once the reader will bring nothing more.
    pub(crate) async fn until_ended(&self) {
        // The queue itself keeps the sender.
        let _ = self.over.subscribe().wait_for(|is_over| *is_over).await;
    }

    /// Whether standard input holds what was not read.
    pub(crate) fn has_unread(&self) -> bool {
        let state = self.lock();
        state.has_unread || !state.ended
    }

    /// The next piece.
    pub(crate) fn take(&self) -> Option<Piece> {
        let mut state = self.lock();
        if state.is_leaving_it_to_the_spool() {
            return None;
        }
        let piece = match state.held.take() {
            Some(piece) => piece,
            None => state.next_piece(&self.metrics)?,
        };
        let follows = match (state.last_entry, piece.entry) {
            (Some(last), Some(entry)) => entry == last + 1,
            _ => true,
        };
        if state.torn && (piece.starts_line || !follows) && !piece.is_joint() {
            state.torn = false;
            state.last_entry = None;
            state.held = Some(piece);
            return Some(Piece::joint());
        }
        state.torn = !piece.ends_line;
        state.last_entry = piece.entry;
        self.measure(&state);
        drop(state);
        self.room.notify_all();
        Some(piece)
    }

    /// Whether nothing more comes out, now and later.
    pub(crate) fn is_finished(&self) -> bool {
        let state = self.lock();
        if !state.ended || state.held.is_some() {
            return false;
        }
        match &state.backing {
            Backing::Memory { buffer, .. } => buffer.held_bytes() == 0,
            Backing::Spool(_) if state.stopping => true,
            Backing::Spool(spool) => spool.is_read(),
        }
    }

    /// Whether a signal came and what is left stays in the spool.
    pub(crate) fn is_leaving_it_to_the_spool(&self) -> bool {
        self.lock().is_leaving_it_to_the_spool()
    }

    /// Spool entries below `before` are handed over.
    pub(crate) fn release(&self, before: u64) {
        let mut state = self.lock();
        let State { backing: Backing::Spool(spool), told, .. } = &mut *state else { return };
        match spool.release(before) {
            Ok(()) if std::mem::take(&mut told.mark_failing) => {
                tracing::info!("the spool notes again what is handed over");
            }
            Ok(()) => {}
            Err(error) => {
                self.metrics.spool_errors.inc();
                if !std::mem::replace(&mut told.mark_failing, true) {
                    tracing::warn!(%error, "the spool cannot note what is handed over: lines may be sent twice");
                }
            }
        }
        self.measure(&state);
        drop(state);
        self.room.notify_all();
    }

    /// Makes what is in the spool durable. Blocks, without holding the queue.
    pub(crate) fn sync_spool(&self) -> bool {
        let (outcome, job) = loop {
            let job = match &mut self.lock().backing {
                Backing::Spool(spool) => spool.sync_job(),
                Backing::Memory { .. } => return true,
            };
            let (outcome, job) = match job {
                Ok(None) => return true,
                Ok(Some(job)) => (job.run(), job),
                Err(error) => break (Err(error), None),
            };
            // Each time round a file was handed over.
            let is_gone = |e: &std::io::Error| e.kind() == std::io::ErrorKind::NotFound;
            let is_outdated = outcome.as_ref().is_err_and(is_gone)
                && matches!(&self.lock().backing, Backing::Spool(spool) if spool.has_let_go_of(&job));
            if !is_outdated {
                break (outcome, Some(job));
            }
        };
        let failed = outcome.as_ref().err().map(|error| (error.kind(), error.to_string()));
        let mut state = self.lock();
        let State { backing: Backing::Spool(spool), told, .. } = &mut *state else { return true };
        let kept = job.is_some_and(|job| spool.on_synced(job, outcome).is_ok());
        match failed {
            Some((kind, error)) => {
                self.metrics.spool_errors.inc();
                let is_news = !std::mem::replace(&mut told.sync_failing, true);
                told.taken_away |= kind == std::io::ErrorKind::NotFound && !kept;
                if is_news && kind == std::io::ErrorKind::NotFound {
                    tracing::error!(
                        error,
                        written_again = kept,
                        "the spool was taken away: what is not written again is in memory only"
                    );
                } else if is_news {
                    tracing::warn!(
                        error,
                        written_again = kept,
                        "the spool cannot be synced: until it can, lines survive a kill but no power loss"
                    );
                }
            }
            None if std::mem::take(&mut told.sync_failing) => {
                tracing::info!("the spool is synced again");
            }
            None => {}
        }
        kept
    }

    /// Looks whether what waits in the spool is where the next start looks for it. Blocks, without holding
    /// the queue.
    pub(crate) fn look_at_names(&self) {
        let job = match &mut self.lock().backing {
            Backing::Spool(spool) => spool.names_job(),
            Backing::Memory { .. } => None,
        };
        let found = job.map(NamesJob::run);
        let mut state = self.lock();
        let State { backing: Backing::Spool(spool), told, .. } = &mut *state else { return };
        let NamesSeen { gone, is_written_again } =
            found.map(|found| spool.on_names(found)).unwrap_or_default();
        let is_nameless = spool.nameless_files() > 0;
        if let Some(error) = gone {
            self.metrics.spool_errors.inc();
            if is_nameless && !std::mem::replace(&mut told.taken_away, true) {
                tracing::error!(
                    %error,
                    "the spool was taken away: put it back, or lines that wait in it are lost"
                );
            } else if is_written_again {
                // Where it is not, the next sync tells.
                tracing::warn!(
                    %error,
                    "a file of the spool was taken away: what it held is written again"
                );
            }
        } else if !is_nameless && !told.sync_failing && std::mem::take(&mut told.taken_away) {
            tracing::info!("the spool is where it was");
        }
    }

    /// Reads again what of the spool could not be read. Blocks.
    pub(crate) fn read_again(&self) {
        let mut state = self.lock();
        let Backing::Spool(spool) = &mut state.backing else { return };
        if spool.unread_files() == 0 || !spool.read_again() {
            return;
        }
        tracing::info!("what could not be read of the spool is read again: its lines are sent");
        state.tell_damage(&self.metrics);
        self.measure(&state);
        drop(state);
        self.news.notify_one();
    }

    /// Nothing more will be done with it: leaves the spool tidy. What is left in it is durable
    /// if this says so.
    pub(crate) fn close(&self) -> bool {
        let synced = self.sync_spool();
        let mut state = self.lock();
        state.told.tell_dropped(true);
        match &mut state.backing {
            // After a failed sync the lines were written again: to be synced once more.
            Backing::Spool(spool) => {
                let finished = spool.finish();
                drop(state);
                if let Err(error) = &finished {
                    tracing::error!("the spool cannot be left in order: {error}");
                }
                synced && self.sync_spool() && finished.is_ok()
            }
            Backing::Memory { .. } => true,
        }
    }

    /// Whether there may be something that cannot be read now.
    pub(crate) fn is_failing_to_read(&self) -> bool {
        self.lock().told.read_failing
    }

    /// Lines that wait: in memory (those would be lost), and in the spool.
    pub(crate) fn left(&self) -> (u64, u64) {
        let state = self.lock();
        let held = state.held.as_ref().map_or(0, |piece| piece.lines);
        match &state.backing {
            Backing::Memory { buffer, .. } => (buffer.lines() + held + state.unplaced_lines, 0),
            Backing::Spool(spool) => (state.unplaced_lines, spool.pending_lines()),
        }
    }

    /// Whether anything waits in the spool.
    pub(crate) fn has_spooled(&self) -> bool {
        match &self.lock().backing {
            Backing::Spool(spool) => spool.pending_entries() > 0 || spool.unread_files() > 0,
            Backing::Memory { .. } => false,
        }
    }

    /// Whether lines are kept on disk.
    pub(crate) fn is_spool(&self) -> bool {
        matches!(self.lock().backing, Backing::Spool(_))
    }

    /// Why standard input ended, if it failed.
    pub(crate) fn take_input_error(&self) -> Option<io::Error> {
        self.lock().input_error.take()
    }

    /// What is wrong, for `/health`.
    pub(crate) fn reasons(&self) -> Vec<String> {
        let state = self.lock();
        let told = &state.told;
        let mut reasons = Vec::new();
        if matches!(&state.backing, Backing::Spool(spool) if spool.unread_files() > 0) {
            reasons.push("a part of the spool cannot be read".to_owned());
        }
        if told.spool_full {
            reasons.push("the spool is full: standard input waits".to_owned());
        }
        if told.spool_failing || told.mark_failing || told.sync_failing || told.read_failing {
            reasons.push("the spool's disk is failing".to_owned());
        }
        if told.taken_away {
            reasons.push("the spool was taken away: lines that wait in it may be lost".to_owned());
        }
        if told.dropped_at.is_some_and(|at| at.elapsed() < FORWARD_TELL_INTERVAL) {
            reasons.push("records are being dropped".to_owned());
        }
        reasons
    }

    fn measure(&self, state: &State) {
        match &state.backing {
            Backing::Memory { buffer, .. } => {
                self.metrics.buffer_bytes.set(buffer.held_bytes() as i64);
            }
            Backing::Spool(spool) => {
                self.metrics.spool_bytes.set(spool.disk_bytes() as i64);
                self.metrics.spool_records.set(spool.pending_lines() as i64);
            }
        }
    }
}

impl State {
    fn tell_damage(&mut self, metrics: &ForwardMetrics) {
        let Backing::Spool(spool) = &mut self.backing else { return };
        for damage in spool.take_damage() {
            if damage.refusal().is_some() {
                metrics.spool_errors.inc();
                tracing::warn!(
                    "a part of the spool cannot be read now, and is read again: {damage}"
                );
            } else {
                metrics.spool_damage.inc();
                tracing::warn!("the spool is damaged: {damage}");
            }
        }
    }

    const fn is_leaving_it_to_the_spool(&self) -> bool {
        self.stopping && self.ended && matches!(self.backing, Backing::Spool(_))
    }

    /// Gives the piece back if there is no room, with the time after which to try again even if
    /// nothing was taken.
    fn try_push(
        &mut self,
        piece: Piece,
        metrics: &ForwardMetrics,
    ) -> (Option<Piece>, Option<Duration>) {
        match &mut self.backing {
            Backing::Memory { buffer, drops: true } => {
                buffer.push_dropping(piece);
                let dropped = buffer.take_dropped();
                metrics.dropped_records.inc_by(dropped.lines);
                metrics.dropped_bytes.inc_by(dropped.bytes);
                self.told.dropped_lines += dropped.lines;
                self.told.tell_dropped(false);
                (None, None)
            }
            Backing::Memory { buffer, .. } if self.closing => {
                buffer.keep(piece);
                (None, None)
            }
            Backing::Memory { buffer, .. } => match buffer.push(piece) {
                Pushed::Kept => (None, None),
                Pushed::Full(piece) => (Some(piece), None),
            },
            Backing::Spool(spool) => {
                let Piece { bytes, lines, starts_line, ends_line, .. } = piece;
                let entry = Entry { bytes, lines, starts_line, ends_line };
                let outcome = spool.append(&entry, self.closing);
                self.told.tell_append(&outcome, spool, metrics);
                let Err(error) = outcome else { return (None, None) };
                let Entry { bytes, lines, starts_line, ends_line } = entry;
                let again = Piece { bytes, lines, starts_line, ends_line, entry: None };
                (Some(again), matches!(error, AppendError::Io(_)).then_some(SPOOL_RETRY))
            }
        }
    }

    fn next_piece(&mut self, metrics: &ForwardMetrics) -> Option<Piece> {
        let spool = match &mut self.backing {
            Backing::Memory { buffer, .. } => return buffer.take(),
            Backing::Spool(spool) => spool,
        };
        let next = spool.read_next();
        self.tell_damage(metrics);
        match next {
            Ok(next) => {
                self.told.read_failing = false;
                let (number, Entry { bytes, lines, starts_line, ends_line }) = next?;
                Some(Piece { bytes, lines, starts_line, ends_line, entry: Some(number) })
            }
            Err(error) => {
                metrics.spool_errors.inc();
                if !std::mem::replace(&mut self.told.read_failing, true) {
                    tracing::warn!(%error, "the spool cannot be read");
                }
                None
            }
        }
    }
}

impl Told {
    /// At most one line per interval; `now`: whatever was not told yet.
    fn tell_dropped(&mut self, now: bool) {
        let is_due = self.dropped_at.is_none_or(|at| at.elapsed() >= FORWARD_TELL_INTERVAL);
        if self.dropped_lines > 0 && (is_due || now) {
            self.dropped_total += self.dropped_lines;
            tracing::warn!(
                records = self.dropped_lines,
                total = self.dropped_total,
                "the buffer is full: dropped the oldest records"
            );
            self.dropped_lines = 0;
            self.dropped_at = Some(Instant::now());
        }
    }

    fn tell_append(
        &mut self,
        outcome: &Result<u64, AppendError>,
        spool: &Spool,
        metrics: &ForwardMetrics,
    ) {
        match outcome {
            Ok(_) => {
                if std::mem::take(&mut self.spool_failing) {
                    tracing::info!("the spool takes lines again");
                }
                // Told as over only when there is some room, so that it is not told all the time.
                if self.spool_full && spool.has_ample_room() {
                    self.spool_full = false;
                    tracing::info!("the spool has room again");
                }
            }
            Err(AppendError::Full) => {
                if !std::mem::replace(&mut self.spool_full, true) {
                    let (records, bytes) = (spool.pending_lines(), spool.disk_bytes());
                    tracing::warn!(records, bytes, "the spool is full: standard input waits");
                }
            }
            Err(AppendError::Io(error)) => {
                metrics.spool_errors.inc();
                if !std::mem::replace(&mut self.spool_failing, true) {
                    tracing::warn!(%error, "the spool cannot be written: standard input waits");
                }
            }
        }
    }
}
