//! What a node of the simulation gathers from: its own registry, which tells what fails.

use std::io;
use std::sync::{Arc, Mutex};

use engine::damage::Damage;
use engine::ingest::registry::{ClaimLimits, ClaimToken, FileError, Registry};
use engine::ingest::segment::SegmentState;
use engine::store::gather::Available;
use engine::store::gather_run::{Claimed, ClaimedInput, IngestSource};
use engine::ulid::Ulid;

/// The registry as a gather's source.
pub(crate) struct Source {
    registry: Arc<Registry>,
    errors: Mutex<Vec<String>>,
}

impl Source {
    pub(crate) fn new(registry: Arc<Registry>) -> Self {
        Self { registry, errors: Mutex::default() }
    }

    /// What failed since this was asked last.
    pub(crate) fn take_errors(&self) -> Vec<String> {
        std::mem::take(&mut self.errors.lock().unwrap())
    }

    fn tell(&self, errors: impl IntoIterator<Item = FileError>) {
        self.errors.lock().unwrap().extend(errors.into_iter().map(|e| e.to_string()));
    }
}

fn ids(inputs: &[u128]) -> Vec<Ulid> {
    inputs.iter().map(|&id| Ulid(id)).collect()
}

impl IngestSource for Source {
    fn available(&self, _: u64) -> Available {
        let rows = self.registry.list();
        let count = rows.iter();
        let count =
            count.filter(|row| row.state == SegmentState::Flushed && row.is_offered).count();
        Available { count, bytes: u64::MAX, oldest_age_ms: 0 }
    }

    fn claim(&self, bytes_max: u64, count_max: usize, now_ms: u64) -> io::Result<Claimed> {
        let limits = ClaimLimits { segments_max: count_max, text_bytes_max: bytes_max };
        let claim = self.registry.claim(limits, now_ms);
        let named = |e: FileError| io::Error::new(e.error.kind(), e.to_string());
        let token = claim.token;
        let (segments, errors) = claim.into_parts().map_err(named)?;
        self.tell(errors);
        Ok(Claimed { token, inputs: segments.into_iter().map(ClaimedInput::from).collect() })
    }

    fn renew(&self, token: ClaimToken, now_ms: u64) -> usize {
        let renewed = self.registry.renew(token, now_ms);
        self.tell(renewed.errors);
        renewed.open
    }

    fn commit(&self, token: ClaimToken, inputs: &[u128], now_ms: u64) {
        self.tell(self.registry.commit(token, &ids(inputs), now_ms).errors);
    }

    fn fail(&self, token: ClaimToken, _: u64) {
        self.tell(self.registry.fail(token).errors);
    }

    fn unread(&self, token: ClaimToken, input: u128, damage: &[Damage], now_ms: u64) {
        if self.registry.note_unread(token, Ulid(input), damage, now_ms) {
            self.errors.lock().unwrap().extend(damage.iter().map(ToString::to_string));
        }
    }

    fn set_aside(&self, token: ClaimToken, input: u128, damage: &[Damage]) {
        assert!(!damage.is_empty());
        // After a failure the claim lapses and the segment is gathered again.
        self.tell(self.registry.set_aside(token, Ulid(input), damage).err());
    }
}
