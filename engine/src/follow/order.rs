//! One sequence out of what several shards took.
//!
//! Each shard hands over its records in ULID order and promises a time below which it will stamp
//! none any more. What lies below the lowest promise is complete, and comes out in ULID order; so a
//! follower that has seen a ULID has seen everything before it.
//!
//! Invariants: what comes out grows strictly; at most the given bytes are held, and what does not
//! fit is counted as lost, with everything else that is not out yet: so whatever is lost lies behind
//! what came out before it and before what comes out after it.

use std::collections::VecDeque;

use crate::ingest::log::{Tapped, TappedRun};

/// See the page of the module.
#[derive(Debug)]
pub struct Ordered {
    shards: Vec<Shard>,
    held_bytes: usize,
    held_bytes_max: usize,
    lost_records: u64,
    /// Records below this time were lost, or are when they come.
    lost_below_ms: u64,
}

#[derive(Debug, Default)]
struct Shard {
    waiting: VecDeque<(Tapped, Place)>,
    promised_ms: u64,
}

/// Where the next run of a batch starts.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    run: usize,
    text: usize,
}

impl Shard {
    fn head(&self) -> Option<&TappedRun> {
        let (batch, place) = self.waiting.front()?;
        batch.runs.get(place.run)
    }
}

impl Ordered {
    /// Nothing yet, from so many shards.
    pub fn new(shards: usize, held_bytes_max: usize) -> Self {
        let shards = (0..shards).map(|_| Shard::default()).collect();
        Self { shards, held_bytes: 0, held_bytes_max, lost_records: 0, lost_below_ms: 0 }
    }

    /// A shard has taken these, and will stamp nothing below this time any more.
    pub fn push(&mut self, shard: usize, batch: Tapped, promised_ms: u64) {
        let Some(of_shard) = self.shards.get_mut(shard) else { return };
        of_shard.promised_ms = of_shard.promised_ms.max(promised_ms);
        let mut place = Place::default();
        for run in &batch.runs {
            if run.first.ms() >= self.lost_below_ms {
                break;
            }
            self.lost_records += u64::from(run.count);
            place = Place { run: place.run + 1, text: place.text + run.text_len as usize };
        }
        if place.run == batch.runs.len() {
            return;
        }
        let bytes = batch.held_bytes();
        if self.held_bytes + bytes > self.held_bytes_max {
            let records = batch.runs[place.run..].iter().map(|run| u64::from(run.count)).sum();
            self.lose(records);
            return;
        }
        self.held_bytes += bytes;
        of_shard.waiting.push_back((batch, place));
    }

    /// So many records, stamped no later than the newest promise, are lost.
    pub fn lose(&mut self, records: u64) {
        if records == 0 {
            return;
        }
        self.lost_records += records;
        self.held_bytes = 0;
        self.lost_below_ms = self.newest_ms() + 1;
        for shard in &mut self.shards {
            for (batch, place) in shard.waiting.drain(..) {
                let runs = batch.runs[place.run..].iter();
                self.lost_records += runs.map(|run| u64::from(run.count)).sum::<u64>();
            }
        }
    }

    /// Everything below this time has come.
    pub fn complete_ms(&self) -> u64 {
        self.shards.iter().map(|shard| shard.promised_ms).min().unwrap_or(0)
    }

    /// The latest promise: nothing was stamped beyond it when it was made.
    pub fn newest_ms(&self) -> u64 {
        self.shards.iter().map(|shard| shard.promised_ms).max().unwrap_or(0)
    }

    /// Whether something waits for a promise.
    pub fn is_holding(&self) -> bool {
        self.held_bytes > 0
    }

    /// Records that were lost since this was asked last.
    pub fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost_records)
    }

    /// What is complete, up to about `bytes_max` of text; empty when nothing is.
    pub fn take(&mut self, bytes_max: usize) -> Tapped {
        let complete_ms = self.complete_ms();
        let mut out = Tapped::default();
        while out.text.len() < bytes_max {
            let heads = self.shards.iter().enumerate();
            let heads = heads.filter_map(|(at, shard)| Some((shard.head()?.first, at)));
            let Some((_, at)) = heads.min().filter(|(first, _)| first.ms() < complete_ms) else {
                break;
            };
            self.take_run(at, &mut out);
        }
        out
    }

    fn take_run(&mut self, at: usize, out: &mut Tapped) {
        let shard = &mut self.shards[at];
        let Some((batch, place)) = shard.waiting.front_mut() else { return };
        let run = &batch.runs[place.run];
        let end = place.text + run.text_len as usize;
        out.push(run.first, run.count, &run.topic, &batch.text[place.text..end]);
        *place = Place { run: place.run + 1, text: end };
        if place.run == batch.runs.len() {
            self.held_bytes -= batch.held_bytes();
            shard.waiting.pop_front();
        }
    }
}
