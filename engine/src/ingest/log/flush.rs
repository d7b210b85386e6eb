//! What a shard's log does next. Each step looks at one kind of effect and says whether it is due;
//! none waits. The order of the steps is their priority.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Effect, Flight, FlightState, Now, ShardLog, SyncInFlight, Work};
use crate::ingest::frame::{FrameBuffer, FramePlace, HEADER_BYTES};
use crate::ingest::segment::Segment;
use crate::ingest::tail::{self, ChunkPlace, END_BYTES, EndMark, Mark};
use crate::limits::{
    DIRECT_WRITE_BYTES_MIN, FRAMES_HELD_MAX, FRAMES_IN_FLIGHT_MAX, TAIL_SLOT_BYTES,
};

impl ShardLog {
    /// The next thing to do, if any is due.
    pub fn next_effect(&mut self, now: Now) -> Option<Effect> {
        self.last_now_us = now.monotonic_us;
        self.abandon_failed(now)
            .or_else(|| self.seal_complete())
            .or_else(|| self.adopt_segment())
            .or_else(|| self.sync_due())
            .or_else(|| {
                self.close_due(now);
                self.place_due(now)
            })
            .or_else(|| self.tail_due(now))
    }

    /// When [`ShardLog::next_effect`] is to be called again, if nothing happens before. `None`:
    /// everything waits for a completion or an append.
    pub fn next_deadline_us(&self) -> Option<u64> {
        let flush = self.untailed_since_us.map(|at| at + self.options.flush_interval_us);
        let roll = if self.is_rolling { None } else { self.roll_at_us() };
        let all = [flush, roll, Some(self.resume_us)].into_iter().flatten();
        // What was due at the last call and not done waits for something else.
        all.filter(|&at| at > self.last_now_us).min()
    }

    /// When the current segment is old enough to be sealed.
    fn roll_at_us(&self) -> Option<u64> {
        let work = self.current.as_ref()?;
        let first_us = work.first_us.or(self.staging_first_us)?;
        Some(first_us.saturating_add(self.options.segment_flush_age_us))
    }

    /// A segment whose frames are all written, readable and synced.
    fn seal_complete(&mut self) -> Option<Effect> {
        let is_done =
            |w: &Work| w.failure.is_none() && w.unpublished.is_empty() && w.unsynced.is_empty();
        let at = self.closing.iter().position(is_done)?;
        let incarnation = self.closing[at].segment.incarnation();
        if self.tail.clearing == Some(incarnation) {
            return None;
        }
        // What the tail file holds of it must not come back when its file is gone; and records
        // that were put there under its name, but go elsewhere, must not go with it.
        let owned = self.tail.owners.iter().position(|&owner| owner == Some(incarnation));
        if let Some(slot) = owned.filter(|_| !self.tail.is_broken) {
            if self.tail.in_flight.is_some() || self.is_slot_needed(slot) {
                return None;
            }
            self.tail.owners[slot] = None;
            self.tail.clearing = Some(incarnation);
            let empty = EndMark::EMPTY.encode().to_vec();
            return Some(self.write_tail(tail::slot_offset(slot), empty));
        }
        let work = self.closing.remove(at);
        let (placed, readable) = (work.next_offset, work.segment.written_len());
        assert!(
            work.is_ended && work.writing == 0,
            "a sealed segment is complete: its frames say so"
        );
        assert_eq!(placed, readable, "a sealed segment is complete: all of it can be read");
        Some(Effect::Seal { segment: work.segment, len_bytes: placed })
    }

    /// Whether a slot backs records that are in no segment yet.
    fn is_slot_needed(&self, slot: usize) -> bool {
        let is_staged = self.tail.slot == slot && !self.staging.is_empty();
        is_staged || self.is_frame_backed(slot)
    }

    /// Whether a slot backs a frame that is not safely in its segment: not written, or behind one
    /// that is not, with which it would have to go elsewhere.
    fn is_frame_backed(&self, slot: usize) -> bool {
        let mut flights = self.flights.values();
        flights.any(|f| f.slot == Some(slot) && f.state != FlightState::Published)
    }

    /// Takes the next segment into use, asks for another in time, gives unused ones back.
    fn adopt_segment(&mut self) -> Option<Effect> {
        let has_data = !self.staging.is_empty() || !self.queued.is_empty();
        if self.is_shutting_down && !has_data {
            let is_unused = |work: &mut Work| work.next_number == 0 && work.failure.is_none();
            let unused = self.current.take_if(is_unused).map(|work| work.segment);
            if let Some(segment) = unused.or_else(|| self.next.take()) {
                return Some(Effect::Seal { segment, len_bytes: 0 });
            }
            return None;
        }
        if self.current.is_none() {
            self.current = self.next.take().map(Work::new);
        }
        let is_used = self.roll_at_us().is_some() && !self.is_shutting_down;
        let is_wanted = self.next.is_none() && (self.current.is_none() || is_used);
        if is_wanted && !self.is_segment_asked {
            self.is_segment_asked = true;
            return Some(Effect::WantSegment);
        }
        None
    }

    /// One sync at a time; everything published meanwhile is for the next.
    fn sync_due(&mut self) -> Option<Effect> {
        if self.sync.is_some() {
            return None;
        }
        let works = self.closing.iter().chain(self.current.as_ref());
        let due = works.filter(|w| w.failure.is_none()).find(|work| {
            let first = work.unsynced.front().and_then(|sequence| self.flights.get(sequence));
            let is_final = work.is_ended && work.unpublished.is_empty();
            first.is_some_and(|f| is_final || f.start < self.durable_wanted)
        })?;
        let segment = Arc::clone(&due.segment);
        let covers = due.unsynced.len();
        assert!(covers > 0, "a sync covers frames that are written");
        let token = self.token();
        self.sync = Some(SyncInFlight { token, segment: segment.id(), covers });
        self.stats.syncs += 1;
        Some(Effect::Sync { token, segment })
    }

    /// Closes the staging frame when it is to be written as one.
    fn close_due(&mut self, now: Now) {
        let is_old = self.roll_at_us().is_some_and(|at| now.monotonic_us >= at);
        // Without another segment at hand young records would have no place in the tail file.
        if (is_old && self.next.is_some()) || self.is_shutting_down {
            self.is_rolling = self.current.is_some();
        }
        if self.staging.is_empty() || self.held >= FRAMES_HELD_MAX || self.current.is_none() {
            return;
        }
        let is_wanted = self.durable_end_of_frames() < self.durable_wanted
            && self.writes.is_empty()
            && self.queued.is_empty();
        let is_big = self.staging.text().len() >= DIRECT_WRITE_BYTES_MIN;
        let has_tail = !self.tail.is_full && !self.tail.is_broken;
        let is_due = self.is_flush_due(now) && (is_big || !has_tail);
        if self.is_rolling || is_wanted || is_due {
            self.queue_staging();
        }
    }

    /// Where the staging frame's records begin.
    const fn durable_end_of_frames(&self) -> u64 {
        self.position - self.staging.record_count()
    }

    fn is_flush_due(&self, now: Now) -> bool {
        self.untailed_since_us
            .is_some_and(|at| now.monotonic_us >= at + self.options.flush_interval_us)
    }

    /// Gives the oldest waiting frame its place, or ends a segment that is to be ended.
    fn place_due(&mut self, now: Now) -> Option<Effect> {
        let is_paused = now.monotonic_us < self.resume_us;
        if self.writes.len() >= FRAMES_IN_FLIGHT_MAX || is_paused {
            return None;
        }
        let work = self.current.as_ref().filter(|w| w.failure.is_none())?;
        let sequence = self.queued.first().copied();
        let fits = sequence.filter(|&s| {
            work.last_sequence.is_none_or(|last| s > last)
                && work.next_offset < self.options.segment_flush_size_bytes
        });
        if let Some(sequence) = fits {
            self.queued.remove(&sequence);
            return Some(self.place(sequence));
        }
        let is_over = work.next_offset >= self.options.segment_flush_size_bytes;
        let is_rolled = self.is_rolling && self.staging.is_empty();
        if work.next_number > 0 && (sequence.is_some() || is_over || is_rolled) {
            let mark = Flight {
                start: self.position,
                end: self.position,
                first_us: now.monotonic_us,
                frame: Some(Arc::new(FrameBuffer::end_mark(self.options.alignment_bytes))),
                state: FlightState::Queued,
                offset: 0,
                len: 0,
                slot: None,
            };
            self.flights.insert(self.sequence, mark);
            self.held += 1;
            self.sequence += 1;
            return Some(self.place(self.sequence - 1));
        }
        None
    }

    fn place(&mut self, sequence: u64) -> Effect {
        let work = self.current.as_mut().expect("the caller looked");
        let flight = self.flights.get_mut(&sequence).expect("a queued frame is in flight");
        let frame = flight.frame.as_mut().expect("a queued frame has its bytes");
        assert_eq!(flight.state, FlightState::Queued, "frame {sequence} has one place at a time");
        let is_behind = work.last_sequence.is_none_or(|last| last < sequence);
        assert!(
            is_behind && !work.is_ended,
            "frame {sequence} goes behind older ones, before the end"
        );
        let is_mark = frame.is_empty();
        let len_min = (HEADER_BYTES + frame.text().len()) as u64;
        let is_filling = work.next_offset + len_min >= self.options.segment_flush_size_bytes;
        let is_last = is_mark || is_filling || (self.is_rolling && self.queued.is_empty());
        // A copy only if a reader shares it, which can be after a failed write.
        Arc::make_mut(frame).finish(FramePlace {
            incarnation: work.segment.incarnation(),
            number: work.next_number,
            is_last,
            alignment_bytes: self.options.alignment_bytes,
        });
        flight.state = FlightState::Writing;
        flight.offset = work.next_offset;
        flight.len = frame.as_bytes().len() as u64;
        work.next_offset += flight.len;
        work.next_number += 1;
        work.first_us.get_or_insert(flight.first_us);
        work.last_sequence = Some(sequence);
        work.writing += 1;
        work.unpublished.push_back(sequence);
        work.is_ended = is_last;
        let (segment, frame) = (Arc::clone(&work.segment), Arc::clone(frame));
        let (offset_bytes, len) = (flight.offset, flight.len);
        if is_last {
            self.close_current();
        }
        let token = self.token();
        self.writes.push((token, sequence));
        self.stats.frames += 1;
        self.stats.frame_bytes += len;
        Effect::Write { token, segment, offset_bytes, frame }
    }

    /// The current segment takes no more frames.
    pub(super) fn close_current(&mut self) {
        let work = self.current.take();
        self.closing.extend(work.filter(|w| w.failure.is_none()));
        self.is_rolling = false;
        self.unbind_tail();
        self.current = self.next.take().map(Work::new);
    }

    /// The staging's chunks carry a segment that it will not go to. They stay where they are, since
    /// writing over them might lose them and fail: the staging is to be written as a frame.
    pub(super) const fn unbind_tail(&mut self) {
        if self.tail.bound.is_some() {
            self.tail.is_full = true;
            self.untailed_since_us = self.staging_first_us;
        }
    }

    /// Puts what is new in the staging frame into the tail file.
    fn tail_due(&mut self, now: Now) -> Option<Effect> {
        let is_usable = !self.tail.is_broken && !self.tail.is_full && self.tail.in_flight.is_none();
        if !self.is_flush_due(now) || !is_usable || self.staging.is_empty() {
            return None;
        }
        let work = self.current.as_ref().filter(|w| w.failure.is_none())?;
        let number = work.next_number + self.queued.len() as u32;
        let bound = (work.segment.incarnation(), number);
        let slot = self.tail.slot;
        if self.tail.bound.is_none() && self.is_frame_backed(slot) {
            return None;
        }
        if self.tail.bound.is_some_and(|before| before != bound) {
            self.unbind_tail();
            return self.place_full_staging(now);
        }
        let mark = self.tail.mark;
        let text = &self.staging.text()[mark.text_len..];
        let table = mark.rest_of(self.staging.table());
        let place = ChunkPlace {
            incarnation: bound.0,
            frame_number: bound.1,
            chunk_number: self.tail.next_chunk,
        };
        let mut chunk = tail::encode_chunk(&place, &table, text);
        if self.tail.used + chunk.len() + END_BYTES > TAIL_SLOT_BYTES {
            self.tail.is_full = true;
            return self.place_full_staging(now);
        }
        let offset = tail::slot_offset(slot) + self.tail.used as u64;
        self.tail.bound = Some(bound);
        self.tail.owners[slot] = Some(bound.0);
        self.tail.next_chunk += 1;
        self.tail.used += chunk.len();
        let end = EndMark {
            incarnation: bound.0,
            frame_number: bound.1,
            chunk_count: self.tail.next_chunk,
        };
        chunk.extend_from_slice(&end.encode());
        self.tail.mark = Mark::of(self.staging.table(), self.staging.text().len());
        self.untailed_since_us = None;
        Some(self.write_tail(offset, chunk))
    }

    /// The tail file has no room for the staging: it goes the direct way, if that is open.
    fn place_full_staging(&mut self, now: Now) -> Option<Effect> {
        self.close_due(now);
        self.place_due(now)
    }

    fn write_tail(&mut self, offset_bytes: u64, bytes: Vec<u8>) -> Effect {
        assert!(self.tail.in_flight.is_none(), "the tail file is written by one write at a time");
        let token = self.token();
        self.tail.in_flight = Some((token, bytes.len()));
        self.stats.tail_writes += 1;
        self.stats.tail_bytes += bytes.len() as u64;
        Effect::WriteTail { token, offset_bytes, bytes: Arc::new(bytes) }
    }
}

impl Work {
    pub(super) const fn new(segment: Arc<Segment>) -> Self {
        Self {
            segment,
            next_offset: 0,
            next_number: 0,
            first_us: None,
            last_sequence: None,
            writing: 0,
            unpublished: VecDeque::new(),
            unsynced: VecDeque::new(),
            is_ended: false,
            failure: None,
        }
    }
}
