//! Entries that come at the same time are kept together: one append, one wait for the sync that makes them
//! durable.
//!
//! Whoever brings one leaves it at the desk. The first of them has it emptied once all who can be served now
//! have had their turn: that costs no time, for it is as long as this thread has other work. Rounds do not
//! wait for each other; what is written while a sync is under way shares the next one, in the log.
//!
//! Invariants: each is told once what became of its own; what is left there is counted in the ledger until it
//! is in the log; who goes away leaves what he brought.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::post::refused;
use crate::backend::{AppendError, Appender, Writer};
use crate::budget::Taken;
use crate::http::answer::Refusal;
use crate::http::records::OnTheirWay;

/// See the module page.
#[derive(Default)]
pub(in crate::http) struct EntryDesk {
    waiting: Mutex<Vec<Left>>,
}

/// What was left there.
struct Left {
    line: Vec<u8>,
    way: Taken,
    tell: oneshot::Sender<Result<(), Refusal>>,
}

/// Where the entries of this server go.
#[derive(Clone)]
pub(super) struct Goal(pub(super) Writer);

impl Goal {
    /// Takes them there.
    pub(super) fn appender(&self) -> Result<Box<dyn Appender>, AppendError> {
        self.0.appender(true)
    }
}

impl EntryDesk {
    /// Keeps a line; resolves once it is durable. `None`: the server ends.
    pub(super) async fn keep(
        self: &Arc<Self>,
        goal: &Goal,
        line: Vec<u8>,
        way: Taken,
    ) -> Option<Result<(), Refusal>> {
        let (tell, told) = oneshot::channel();
        let is_first = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.push(Left { line, way, tell });
            waiting.len() == 1
        };
        if is_first {
            tokio::spawn(Arc::clone(self).empty(goal.clone()));
        }
        told.await.ok()
    }

    /// Keeps all that is there now.
    async fn empty(self: Arc<Self>, goal: Goal) {
        let waiting = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *waiting)
        };
        let (mut lines, mut ways, mut tells) = (Vec::new(), None::<Taken>, Vec::new());
        for Left { line, way, tell } in waiting {
            if lines.is_empty() {
                lines = line;
            } else {
                lines.extend_from_slice(&line);
            }
            match &mut ways {
                Some(ways) => ways.merge(way),
                None => ways = Some(way),
            }
            tells.push(tell);
        }
        let Some(way) = ways else { return };
        let kept = keep(&goal, OnTheirWay::new(lines.into(), way)).await;
        for tell in tells {
            // It may have gone.
            drop(tell.send(kept.clone()));
        }
    }
}

/// Keeps lines under the topic of entries; resolves once they are durable.
pub(super) async fn keep(goal: &Goal, lines: OnTheirWay) -> Result<(), Refusal> {
    let mut appender = goal.appender().map_err(|error| refused(&error))?;
    let lines = Bytes::from_owner(lines);
    appender.append(lines).await.map_err(|error| refused(&error))?;
    appender.durable().await.map_err(|error| refused(&error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Access;
    use crate::backend::{AppendError, Guarded};
    use crate::http::HttpOptions;
    use crate::http::ledger::Ledger;
    use crate::http::tests::fake::{self, Inner};
    use crate::metrics::NodeMetrics;

    fn goal(inner: &Arc<Inner>) -> Goal {
        let node = Guarded::new(fake::backend(inner));
        Goal(node.writer(&Access::everything(), Some(fake::topic("log"))).unwrap())
    }

    /// Leaves so many lines at the same time; what became of them.
    async fn keep_all(ledger: &Ledger, goal: &Goal, count: usize) -> Vec<Result<(), Refusal>> {
        let desk = Arc::new(EntryDesk::default());
        let mut tasks = Vec::new();
        for n in 0..count {
            let (desk, goal) = (Arc::clone(&desk), goal.clone());
            let line = format!("{n}\n").into_bytes();
            let way = ledger.lines_on_their_way.try_take(line.len() as u64).unwrap();
            tasks.push(tokio::spawn(async move { desk.keep(&goal, line, way).await.unwrap() }));
        }
        let mut results = Vec::new();
        for task in tasks {
            results.push(task.await.unwrap());
        }
        results
    }

    #[tokio::test]
    async fn those_who_come_at_the_same_time_share_an_append_and_a_sync() {
        let ledger = Ledger::new(&HttpOptions::default(), 1 << 20, &NodeMetrics::new(1));
        let inner = Arc::new(Inner::default());
        let goal = goal(&inner);
        assert_eq!(keep_all(&ledger, &goal, 50).await, vec![Ok(()); 50]);
        let texts = |inner: &Inner| -> Vec<String> {
            let records = inner.records.lock().unwrap();
            records.iter().map(|(.., text)| String::from_utf8(text.clone()).unwrap()).collect()
        };
        assert_eq!(texts(&inner), (0..50).map(|n| n.to_string()).collect::<Vec<_>>());
        assert_eq!(inner.batches.lock().unwrap().len(), 1);
        assert_eq!(inner.syncs.load(std::sync::atomic::Ordering::SeqCst), 1);
        assert_eq!(ledger.lines_on_their_way.used(), 0);
        // All of them learn it where it could not be kept.
        *inner.fail_durable.lock().unwrap() = Some(AppendError::DiskFull);
        let results = keep_all(&ledger, &goal, 3).await;
        assert!(results.iter().all(|result| matches!(result, Err(why) if why.status == 503)));
        assert_eq!(results.len(), 3);
    }
}
