//! What completions change: frames become readable, then durable, then forgotten; a failure ends
//! its segment and sends back to the queue what is still needed.

use std::io;
use std::sync::Arc;

use super::{Effect, FlightState, Now, ShardLog, Token, Work, content_of};
use crate::ingest::segment::Segment;
use crate::limits::WRITE_RETRY_US_MAX;
use crate::ulid::Ulid;

/// First pause after a failed write or sync, microseconds; doubled by each further one.
const WRITE_RETRY_US_MIN: u64 = 50_000;

impl ShardLog {
    /// The answer to [`Effect::WantSegment`]: a prepared segment with a durable name.
    pub fn on_segment(&mut self, segment: Arc<Segment>) {
        assert!(self.next.is_none(), "one segment is asked for at a time");
        self.is_segment_asked = false;
        self.next = Some(segment);
    }

    fn work_mut(&mut self, id: Ulid) -> &mut Work {
        let works = self.closing.iter_mut().chain(self.current.as_mut());
        works.into_iter().find(|w| w.segment.id() == id).expect("its segment is being written")
    }

    /// The completion of [`Effect::Write`], with the bytes written; fewer than asked are a failure.
    pub fn on_written(&mut self, token: Token, result: io::Result<usize>) {
        let at = self.writes.iter().position(|&(t, _)| t == token).expect("a token of ours");
        let (_, sequence) = self.writes.swap_remove(at);
        let flight = self.flights.get_mut(&sequence).expect("a frame being written is in flight");
        assert_eq!(flight.state, FlightState::Writing, "frame {sequence} was written once");
        let len = flight.len;
        let works = self.closing.iter_mut().chain(self.current.as_mut());
        let mut owners = works.filter(|w| w.unpublished.contains(&sequence));
        let work = owners.next().expect("its segment is being written");
        work.writing -= 1;
        match whole(result, len) {
            Ok(()) => {
                flight.state = FlightState::Written;
                let id = work.segment.id();
                self.publish(id);
            }
            Err(error) => {
                self.stats.write_errors += 1;
                work.failure.get_or_insert(error);
            }
        }
    }

    /// Makes readable what is written without a gap.
    fn publish(&mut self, id: Ulid) {
        loop {
            let wanted = self.durable_wanted;
            let work = self.work_mut(id);
            let Some(&sequence) = work.unpublished.front() else { return };
            let segment = Arc::clone(&work.segment);
            let flight =
                self.flights.get_mut(&sequence).expect("an unpublished frame is in flight");
            if flight.state != FlightState::Written {
                return;
            }
            flight.state = FlightState::Published;
            assert_eq!(
                segment.written_len(),
                flight.offset,
                "frames become readable without a gap"
            );
            let frame = flight.frame.as_ref().expect("it has its bytes until it is published");
            segment.publish(flight.offset + flight.len, content_of(frame));
            let released = flight.frame.take_if(|_| flight.start >= wanted);
            let work = self.work_mut(id);
            work.unpublished.pop_front();
            work.unsynced.push_back(sequence);
            if let Some(frame) = released {
                self.retire(frame);
            }
        }
    }

    /// The completion of [`Effect::Sync`].
    pub fn on_synced(&mut self, token: Token, result: io::Result<()>) {
        let sync = self.sync.take_if(|sync| sync.token == token).expect("a token of ours");
        let work = self.work_mut(sync.segment);
        match result {
            Ok(()) => {
                let covered: Vec<u64> = work.unsynced.drain(..sync.covers).collect();
                let segment = Arc::clone(&work.segment);
                self.failures = 0;
                for sequence in covered {
                    let flight = self.flights.remove(&sequence);
                    if let Some(flight) = &flight {
                        let is_readable = flight.state == FlightState::Published;
                        assert!(is_readable, "frame {sequence} was written before its sync began");
                        segment.synced(flight.offset + flight.len);
                    }
                    if let Some(frame) = flight.and_then(|flight| flight.frame) {
                        self.retire(frame);
                    }
                }
            }
            Err(error) => {
                work.failure.get_or_insert(error);
                self.stats.sync_errors += 1;
            }
        }
    }

    /// Somebody has deleted the file of this segment: as after a failed write it takes nothing more, and
    /// what is not synced is written anew.
    pub fn lose_segment(&mut self, id: Ulid) {
        if let Some(next) = self.next.take_if(|next| next.id() == id) {
            self.closing.push(Work::new(next));
        }
        let works = self.closing.iter_mut().chain(self.current.as_mut());
        if let Some(work) = works.into_iter().find(|work| work.segment.id() == id) {
            work.failure.get_or_insert_with(|| io::ErrorKind::NotFound.into());
        }
    }

    /// Somebody has deleted the tail file: nothing more is written to it.
    pub fn lose_tail(&mut self) {
        self.tail.is_broken = true;
        self.untailed_since_us = self.staging_first_us;
    }

    /// The completion of [`Effect::WriteTail`], with the bytes written.
    pub fn on_tail_written(&mut self, token: Token, result: io::Result<usize>) {
        let (_, len) = self.tail.in_flight.take_if(|(t, _)| *t == token).expect("a token of ours");
        self.tail.clearing = None;
        if whole(result, len as u64).is_err() {
            self.stats.tail_errors += 1;
            self.tail.is_broken = true;
            self.untailed_since_us = self.staging_first_us;
        }
    }

    /// Ends a failed segment as soon as nothing is under way in it.
    pub(super) fn abandon_failed(&mut self, now: Now) -> Option<Effect> {
        let syncing = self.sync.as_ref().map(|sync| sync.segment);
        let is_settled =
            |w: &Work| w.failure.is_some() && w.writing == 0 && syncing != Some(w.segment.id());
        let work = if let Some(at) = self.closing.iter().position(is_settled) {
            self.closing.remove(at)
        } else {
            let work = self.current.take_if(|w| is_settled(w))?;
            self.is_rolling = false;
            self.unbind_tail();
            work
        };
        let Work { segment, unsynced, unpublished, failure, .. } = work;
        for sequence in unsynced.into_iter().chain(unpublished) {
            self.queue_again(sequence);
        }
        self.failures += 1;
        let pause_us = WRITE_RETRY_US_MIN << self.failures.min(16);
        self.resume_us = now.monotonic_us + pause_us.min(WRITE_RETRY_US_MAX);
        let error = failure.expect("the segment is a failed one");
        segment.mark_failed();
        let len_bytes = segment.written_len();
        Some(Effect::Abandon { segment, len_bytes, error })
    }

    /// A frame of a failed segment: rewritten if its bytes are here. If they are not, it is in the
    /// segment, written but perhaps not durable, and nobody had asked that it be.
    fn queue_again(&mut self, sequence: u64) {
        let Some(flight) = self.flights.get_mut(&sequence) else { return };
        let is_mark = flight.start == flight.end;
        if flight.frame.is_some() && !is_mark {
            flight.state = FlightState::Queued;
            self.queued.insert(sequence);
            return;
        }
        let Some(flight) = self.flights.remove(&sequence) else { return };
        if self.is_shutting_down {
            self.let_go_records += flight.end - flight.start;
        }
        if let Some(frame) = flight.frame {
            self.retire(frame);
        }
    }
}

/// A short write is a failure: what is behind it may never have reached the disk.
fn whole(result: io::Result<usize>, len: u64) -> io::Result<()> {
    match result {
        Ok(written) if written as u64 == len => Ok(()),
        Ok(_) => Err(io::ErrorKind::WriteZero.into()),
        Err(error) => Err(error),
    }
}
