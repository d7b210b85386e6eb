//! Gaps of answers in the log: what a query could not search, each gap once, however often it is
//! met; and damaged signatures, which leave no gap but cost time.
//!
//! Invariants: memory is bounded; when it is full everything is forgotten, and told again.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use engine::damage::Damage;
use engine::search::Missing;

use crate::metrics::NodeMetrics;

/// Gaps remembered at a time.
const TOLD_MAX: usize = 1024;

/// What was told.
#[derive(Debug, Default)]
pub(super) struct Told(Mutex<HashSet<String>>);

impl Told {
    /// One line for each gap that was not told before; each is counted, and as damage if it is.
    pub(super) fn tell(&self, gaps: &[Missing], metrics: &NodeMetrics) {
        for gap in gaps {
            if self.is_new(&gap.reason) {
                metrics.query.gaps.inc();
                if let Some(damage) = &gap.damage {
                    metrics.count_damage(damage);
                }
                tracing::warn!("a query could not search everything: {}", gap.reason);
            }
        }
    }

    /// One line for each damaged signature that was not told before; each is counted as damage.
    pub(super) fn tell_signatures(&self, damages: &[Damage], metrics: &NodeMetrics) {
        for damage in damages {
            let reason = damage.to_string();
            if self.is_new(&reason) {
                metrics.count_damage(damage);
                tracing::warn!("a query may have read more than it had to: {reason}");
            }
        }
    }

    fn is_new(&self, reason: &str) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if told.contains(reason) {
            return false;
        }
        if told.len() >= TOLD_MAX {
            told.clear();
        }
        told.insert(reason.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::damage::DamageKind;
    use engine::ulid::Ulid;

    #[test]
    fn each_gap_is_new_once_and_memory_is_bounded() {
        let told = Told::default();
        let metrics = NodeMetrics::new(1);
        let gap = |reason: &str| Missing {
            from: Ulid::MIN,
            to: Ulid::MAX,
            node: "n".into(),
            reason: reason.into(),
            damage: None,
        };
        told.tell(&[gap("x"), gap("y"), gap("x")], &metrics);
        told.tell(&[gap("y")], &metrics);
        assert_eq!((metrics.query.gaps.get(), metrics.damage.get()), (2, 0));
        assert!(told.is_new("a") && told.is_new("b"));
        assert!(!told.is_new("a") && !told.is_new("b"));
        for i in 0..3 * TOLD_MAX {
            assert!(told.is_new(&i.to_string()));
        }
        assert!(told.0.lock().unwrap().len() <= TOLD_MAX);
        assert!(told.is_new("a"), "forgotten meanwhile");
    }

    #[test]
    fn a_gap_that_is_damage_is_counted_as_such_once() {
        let (told, metrics) = (Told::default(), NodeMetrics::new(1));
        let gap = |offset| {
            let damage = Damage {
                path: "data/store/a.flushed".into(),
                offset,
                len_bytes: 100,
                range: Some((Ulid(1), Ulid(2))),
                records: Some(2),
                kind: DamageKind::Checksum("text of a block"),
            };
            Missing {
                from: Ulid(1),
                to: Ulid(2),
                node: "n".into(),
                reason: damage.to_string(),
                damage: Some(damage),
            }
        };
        // What a start or a gather found is not found again.
        metrics.count_damage(&gap(0).damage.unwrap());
        assert_eq!(metrics.damage.get(), 1);
        told.tell(&[gap(0), gap(64)], &metrics);
        told.tell(&[gap(64)], &metrics);
        assert_eq!((metrics.damage.get(), metrics.damage_records_lost.get()), (2, 4));
        assert_eq!(metrics.query.gaps.get(), 2);
    }

    #[test]
    fn a_damaged_signature_is_counted_once_and_is_no_gap() {
        let (told, metrics) = (Told::default(), NodeMetrics::new(1));
        let damage = Damage {
            path: "data/store/a.flushed".into(),
            offset: 4096,
            len_bytes: 100,
            range: None,
            records: Some(0),
            kind: DamageKind::Dispensable("signature matrix"),
        };
        told.tell_signatures(&[damage.clone(), damage.clone()], &metrics);
        told.tell_signatures(&[damage], &metrics);
        assert_eq!((metrics.damage.get(), metrics.query.gaps.get()), (1, 0));
    }
}
