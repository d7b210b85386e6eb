//! The memory that queries share (`--query.memory-max`), taken before it is used.
//!
//! A query takes [`crate::limits::QUERY_BYTES_MAX`] for its output and hits, and what its compiled
//! expression holds on top, which for a regular expression of Unicode classes can be many times as
//! much. Followers have a budget of their own for their expressions.
//!
//! Invariants: what is out is never more than the budget; a part is given back when its permit is
//! dropped.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// One permit, bytes: a semaphore counts to 2^32 in one go.
const UNIT_BYTES: usize = 1 << 10;

/// See the module page.
#[derive(Debug, Clone)]
pub(super) struct QueryMemory {
    units: Arc<Semaphore>,
    max: usize,
}

/// Why there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoMemory {
    /// More than there is.
    TooMuch,
    /// Others hold it.
    InUse,
}

impl QueryMemory {
    /// A budget of so many bytes.
    pub(super) fn new(bytes: u64) -> Self {
        let units = usize::try_from(bytes).unwrap_or(usize::MAX) / UNIT_BYTES;
        let max = units.min(Semaphore::MAX_PERMITS).min(u32::MAX as usize);
        Self { units: Arc::new(Semaphore::new(max)), max }
    }

    /// Takes so many bytes if they are there.
    pub(super) fn try_take(&self, bytes: usize) -> Result<OwnedSemaphorePermit, NoMemory> {
        let units = self.units_of(bytes)?;
        let taken = Arc::clone(&self.units).try_acquire_many_owned(units);
        taken.map_err(|_| NoMemory::InUse)
    }

    /// The same, after as much time at most as `wait`.
    pub(super) async fn take(
        &self,
        bytes: usize,
        wait: Duration,
    ) -> Result<OwnedSemaphorePermit, NoMemory> {
        let units = self.units_of(bytes)?;
        let taken = Arc::clone(&self.units).acquire_many_owned(units);
        match tokio::time::timeout(wait, taken).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(NoMemory::InUse),
        }
    }

    fn units_of(&self, bytes: usize) -> Result<u32, NoMemory> {
        let units = bytes.div_ceil(UNIT_BYTES);
        let units = u32::try_from(units).map_err(|_| NoMemory::TooMuch)?;
        if units as usize > self.max { Err(NoMemory::TooMuch) } else { Ok(units) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn no_more_is_given_out_than_there_is() {
        let memory = QueryMemory::new(10 << 10);
        let first = memory.try_take(6 << 10).unwrap();
        assert_eq!(memory.try_take(5 << 10).unwrap_err(), NoMemory::InUse);
        let wait = Duration::from_secs(1);
        assert_eq!(memory.take(5 << 10, wait).await.unwrap_err(), NoMemory::InUse);
        assert_eq!(memory.take(11 << 10, wait).await.unwrap_err(), NoMemory::TooMuch);
        let second = memory.take((3 << 10) + 1, wait).await.unwrap();
        assert_eq!(memory.try_take(1).unwrap_err(), NoMemory::InUse);
        drop((first, second));
        assert!(memory.try_take(10 << 10).is_ok());
        assert_eq!(QueryMemory::new(u64::MAX).try_take(usize::MAX).unwrap_err(), NoMemory::TooMuch);
    }
}
