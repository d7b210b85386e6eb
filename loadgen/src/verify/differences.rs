//! Compares three collections of hashes: promised, sent without a promise, found.

/// How often a record is there too rarely or too often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Difference {
    Missing(u64),
    Duplicated(u64),
    /// Found, but never sent.
    Unknown(u64),
}

/// Hashes of one partition, in any order.
#[derive(Debug, Default)]
pub(crate) struct Sides {
    pub(crate) promised: Vec<u128>,
    pub(crate) unpromised: Vec<u128>,
    pub(crate) found: Vec<u128>,
}

impl Sides {
    /// Hands out every hash that is found less often than promised or more often than sent.
    pub(crate) fn differences(mut self, each: &mut dyn FnMut(u128, Difference)) {
        for side in [&mut self.promised, &mut self.unpromised, &mut self.found] {
            side.sort_unstable();
        }
        let mut rests = [&self.promised[..], &self.unpromised[..], &self.found[..]];
        while let Some(hash) = rests.iter().filter_map(|rest| rest.first().copied()).min() {
            let [promised, unpromised, found] = rests.each_mut().map(|rest| take(rest, hash));
            let sent = promised + unpromised;
            if found < promised {
                each(hash, Difference::Missing(promised - found));
            } else if sent == 0 {
                each(hash, Difference::Unknown(found));
            } else if found > sent {
                each(hash, Difference::Duplicated(found - sent));
            }
        }
    }
}

/// Takes all copies of `hash` off the front; says how many.
fn take(rest: &mut &[u128], hash: u128) -> u64 {
    let count = rest.iter().take_while(|&&other| other == hash).count();
    *rest = &rest[count..];
    count as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_difference_is_counted() {
        let sides = Sides {
            promised: vec![1, 2, 2, 3],
            unpromised: vec![4, 1],
            found: vec![5, 2, 3, 3, 1, 1, 5],
        };
        let mut differences = Vec::new();
        sides.differences(&mut |hash, difference| differences.push((hash, difference)));
        assert_eq!(
            differences,
            [
                (2, Difference::Missing(1)),
                (3, Difference::Duplicated(1)),
                (5, Difference::Unknown(2)),
            ]
        );
    }
}
