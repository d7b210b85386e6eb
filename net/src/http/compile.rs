//! Compiles the expressions of a request.
//!
//! Invariants: what it may hold is taken before it is compiled, and kept until then, also when the client has
//! gone meanwhile; what is not needed afterwards is given back. A few are compiled at a time. Most expressions are small
//! and need little at hand: one that turns out larger is compiled anew with more. Nobody waits while he
//! holds something compiled. What takes long is not done on this thread.

use engine::limits::{EXPRESSION_COMPILED_BYTES_MAX, EXPRESSION_TRIES_BYTES};
use engine::search::{Chain, ChainError, ChainText, Side};

use tokio::time::Instant;

use super::answer::Refusal;
use super::ledger::Ledger;
use super::query::stopping;
use super::query_request::refused;
use crate::budget::Taken;

/// How large it may become, and what that may cost, bytes: try by try.
pub(super) fn tries(source: &ChainText) -> impl Iterator<Item = (usize, u64)> {
    let tries = if source.is_costly() {
        &EXPRESSION_TRIES_BYTES[..]
    } else {
        &[EXPRESSION_COMPILED_BYTES_MAX]
    };
    tries.iter().map(|&size| (size, source.cost_bytes_max(size) as u64))
}

/// What one is told whose expressions were too large at the last try, too.
pub(super) fn too_large(source: &ChainText) -> Refusal {
    let side = if source.all().is_empty() { Side::None } else { Side::All };
    refused(&ChainError::TooLarge { side }, source.is_regex()).into()
}

/// Compiles with what was taken for it, when its turn comes before `until`. `None`: a larger size has to be tried.
pub(super) async fn compile(
    (ledger, until): (&Ledger, Option<Instant>),
    source: &ChainText,
    size_max: usize,
    held: Option<Taken>,
) -> (Option<Taken>, Result<Option<Chain>, Refusal>) {
    let (held, compiled) = if source.is_costly() {
        let Ok(place) = ledger.compiling.take(1, until).await else {
            return (held, Err(ledger.compiling.refusal()));
        };
        let of = source.clone();
        let work = move || {
            let compiled = of.compile(size_max);
            drop(place);
            (held, compiled)
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(done) => done,
            Err(_) => return (None, Err(stopping())),
        }
    } else {
        (held, source.compile(size_max))
    };
    let compiled = match compiled {
        Err(error) if error.is_too_large() && size_max < EXPRESSION_COMPILED_BYTES_MAX => Ok(None),
        Err(error) => Err(refused(&error, source.is_regex()).into()),
        Ok(chain) => Ok(Some(chain)),
    };
    (held, compiled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::HttpOptions;
    use crate::metrics::NodeMetrics;

    fn ledger() -> Ledger {
        Ledger::new(&HttpOptions::default(), 1 << 20, &NodeMetrics::new(1))
    }

    fn source(q: &str, regex: bool) -> ChainText {
        ChainText::new((vec![q.to_owned()], Vec::new()), regex, false).unwrap()
    }

    #[test]
    fn what_compiling_costs_stays_taken_until_it_ends_also_when_nobody_waits_for_it() {
        let ledger = ledger();
        let memory = &ledger.query_memory;
        let runtime =
            tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
        runtime.block_on(async {
            let (may_go_on, waits) = std::sync::mpsc::channel::<()>();
            let before = tokio::task::spawn_blocking(move || waits.recv().is_err());
            let source = source("a|b", true);
            let (size_max, cost) = tries(&source).next().unwrap();
            let held = memory.try_take(cost).unwrap();
            let mut compiling = Box::pin(compile((&ledger, None), &source, size_max, Some(held)));
            tokio::select! {
                biased;
                _ = &mut compiling => panic!("the only thread has other work"),
                () = tokio::task::yield_now() => {}
            }
            drop(compiling);
            assert_eq!(memory.used(), cost, "its client has gone, and it will be compiled");
            assert_eq!(ledger.compiling.used(), 1);
            drop(may_go_on);
            assert!(before.await.unwrap());
            tokio::task::spawn_blocking(|| ()).await.unwrap();
            assert_eq!((memory.used(), ledger.compiling.used()), (0, 0));
        });
    }

    #[tokio::test]
    async fn large_expressions_are_tried_with_more_and_literals_cost_what_they_hold() {
        assert_eq!(tries(&source("abc", false)).collect::<Vec<_>>(), [(10 << 20, 6 + 1024)]);
        for q in ["a|b", r"\w+@\w+", r"\pL{20}", r"\pL{60}", r"\pL{150}", r"(?i)\w{60}x"] {
            let source = source(q, true);
            let mut chain = None;
            let mut costs = Vec::new();
            for (size_max, cost) in tries(&source) {
                costs.push(cost);
                chain = compile((&ledger(), None), &source, size_max, None).await.1.unwrap();
                if chain.is_some() {
                    break;
                }
            }
            let bytes = chain.expect("it compiles").memory_bytes() as u64;
            assert!(bytes <= costs[costs.len() - 1], "{q}: {bytes} of {costs:?}");
            assert!(costs.is_sorted() && costs[0] < 2 << 20, "{q}: {costs:?}");
        }
    }
}
