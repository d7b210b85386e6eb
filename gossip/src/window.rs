//! Which datagrams of a process came already: the highest number, and the 64 below it.

/// What came of one sender.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Window {
    highest: u64,
    /// Bit `i`: `highest - i` came.
    came: u64,
}

impl Window {
    /// Whether this one is new; from now on it is not.
    pub(crate) const fn take(&mut self, number: u64) -> bool {
        if number > self.highest {
            let ahead = number - self.highest;
            self.came = if ahead < 64 { self.came << ahead } else { 0 } | 1;
            self.highest = number;
            return number > 0;
        }
        let behind = self.highest - number;
        if number == 0 || behind >= 64 || self.came & (1 << behind) != 0 {
            return false;
        }
        self.came |= 1 << behind;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use engine::random::Random;

    use super::*;

    #[test]
    fn each_number_counts_once_in_any_order_and_old_ones_never() {
        let mut random = Random::new(3);
        for _ in 0..200 {
            let (mut window, mut came) = (Window::default(), BTreeSet::new());
            let mut top = 0;
            for _ in 0..300 {
                let number = match random.below(40) {
                    0 => random.next_u64() >> random.below(64),
                    _ => (top + random.below(5)).saturating_sub(random.below(90)),
                };
                let is_in_window = number + 64 > top;
                let expected = number > 0 && is_in_window && came.insert(number);
                assert_eq!(window.take(number), expected, "{number} behind {top}");
                top = top.max(number);
            }
        }
    }
}
