//! A seeded stream of random numbers: wyrand, <https://github.com/wangyi-fudan/wyhash>.
//!
//! Invariants: the same seed gives the same numbers on every machine and in every version of this
//! program, because corpora are named by their seed. Not for secrets.

/// The generator; eight bytes of state.
#[derive(Debug, Clone)]
pub(crate) struct Rng {
    state: u64,
}

impl Rng {
    pub(crate) const fn new(seed: u64) -> Self {
        Self { state: splitmix(seed) }
    }

    /// The next 64 random bits.
    #[inline]
    pub(crate) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0xa076_1d64_78bd_642f);
        let product = u128::from(self.state) * u128::from(self.state ^ 0xe703_7ed1_a0b4_28db);
        (product >> 64) as u64 ^ product as u64
    }

    /// A number in `0..limit`; 0 when `limit` is 0.
    #[inline]
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(limit)) >> 64) as u64
    }
}

/// A seed for the `index`-th of several generators that must not resemble one another.
pub(crate) const fn derive(seed: u64, index: u64) -> u64 {
    splitmix(seed.wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}

/// The finaliser of splitmix64 (`engine::random` has it too, which this program knows nothing of), <https://prng.di.unimi.it/splitmix64.c>.
const fn splitmix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_names_its_numbers_for_ever() {
        let mut rng = Rng::new(42);
        let drawn = [rng.next(), rng.next(), rng.next()];
        assert_eq!(drawn, PINNED);
    }

    const PINNED: [u64; 3] =
        [6_327_169_416_285_365_978, 15_026_662_536_226_652_536, 11_841_802_312_108_098_636];

    #[test]
    fn below_reaches_every_value_and_no_other() {
        let mut rng = Rng::new(7);
        let mut seen = [false; 10];
        for _ in 0..1000 {
            seen[rng.below(10) as usize] = true;
        }
        assert_eq!(seen, [true; 10]);
        assert_eq!(rng.below(0), 0);
    }

    #[test]
    fn derived_seeds_differ() {
        assert_ne!(derive(1, 0), derive(1, 1));
        assert_ne!(derive(1, 1), derive(2, 0));
    }
}
