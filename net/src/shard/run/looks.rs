//! What a shard looks for in its connections that no event tells: resets that the ring has not told of,
//! clients that may no longer write, unfinished lines that wait too long or hold too much.
//!
//! Invariants: nothing here waits; where nothing has changed it costs a comparison.

use engine::ingest::log::Now;

use super::super::hangups::hung_up;
use super::super::intake::Intake;
use super::{Shard, key_of};
use crate::limits::HELLO_LOOK_EVERY_US;

impl Shard {
    /// Has those received from anew whose reset the ring has not told of.
    pub(super) fn look_for_hangups(&mut self, now: Now) {
        let slots = self.hangups.due(self.connections.len(), now.monotonic_us);
        let asked: Vec<_> = slots
            .filter_map(|index| Some((index, self.connections[index].as_ref()?)))
            .filter(|(_, connection)| connection.is_open())
            .map(|(index, connection)| {
                (key_of(index, connection.generation()), connection.socket())
            })
            .collect();
        for key in hung_up(&asked) {
            self.driver.stop_receiving(key);
        }
    }

    /// Hangs up on those who may no longer write as they did.
    pub(super) fn look_for_withdrawn(&mut self, now: Now) {
        let changes = self.parts.authority.changes();
        // Their unfinished lines are kept: where there is no room for those, nobody is read from either.
        if self.changes == changes || !self.may_read() {
            return;
        }
        for (index, slot) in self.connections.iter_mut().enumerate() {
            let Some(connection) = slot else { continue };
            if !connection.is_withdrawn(&self.parts.authority) {
                continue;
            }
            // The rest in a later turn.
            if !self.parts.log.can_accept() {
                return;
            }
            self.tally.withdrawn += 1;
            self.tally.partial_bytes -= connection.partial_len();
            connection.on_reset(&mut Intake::of(&mut self.parts, &mut self.tally, now));
            self.owed.push(index);
        }
        self.changes = changes;
    }

    /// Hangs up on those who do not say who they are where they have to, so that they keep no places.
    pub(super) fn look_for_nameless(&mut self, now: Now) {
        if self.parts.authority.is_none() || now.monotonic_us < self.next_nameless_us {
            return;
        }
        self.next_nameless_us = now.monotonic_us + HELLO_LOOK_EVERY_US;
        for (index, slot) in self.connections.iter_mut().enumerate() {
            let Some(connection) = slot else { continue };
            let mut intake = Intake::of(&mut self.parts, &mut self.tally, now);
            if connection.end_nameless(&mut intake) {
                self.owed.push(index);
            }
        }
    }

    pub(super) fn cut_largest_partial(&mut self, now: Now) {
        let largest = self.connections.iter_mut().flatten().max_by_key(|c| c.partial_len());
        if let Some(connection) = largest {
            self.tally.partial_bytes -= connection.partial_len();
            connection.cut_partial(&mut Intake::of(&mut self.parts, &mut self.tally, now));
            self.tally.partials_cut += 1;
        }
    }

    /// Makes records of lines whose end has not come for so long as is waited for it.
    pub(super) fn end_unfinished(&mut self, now: Now) {
        let (now_us, is_reading) = (now.monotonic_us, self.deferred.is_empty() && self.may_read());
        if !self.unfinished.is_time(now_us, is_reading) {
            return;
        }
        for (index, slot) in self.connections.iter_mut().enumerate() {
            let Some(connection) = slot else { continue };
            let since_us = connection.unfinished_since_us();
            if !since_us.is_some_and(|since_us| self.unfinished.is_over(since_us, now_us)) {
                continue;
            }
            self.tally.partial_bytes -= connection.partial_len();
            connection.cut_partial(&mut Intake::of(&mut self.parts, &mut self.tally, now));
            self.tally.partials_idle += 1;
            if connection.is_owed() {
                self.owed.push(index);
            }
            // The rest waits a while longer: there is no room for it now.
            if !self.parts.log.can_accept() {
                break;
            }
        }
    }
}
