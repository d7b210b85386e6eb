//! Random numbers of a seed, and nothing else: the same on every machine and in every version of this
//! program's dependencies. Not for secrets.
//!
//! splitmix64 (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number Generators", 2014;
//! <https://prng.di.unimi.it/splitmix64.c>), its one copy: `loadgen`, which knows nothing of the engine,
//! has another.

/// What the state grows by: 2⁶⁴ over the golden ratio, odd.
const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

/// The first number of a seed's stream: a bijection whose outputs look random.
pub const fn split_mix(seed: u64) -> u64 {
    let z = seed.wrapping_add(STEP);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The number at a place of the stream of seed 0, counted from 1.
pub const fn at_place(place: u64) -> u64 {
    split_mix(place.wrapping_sub(1).wrapping_mul(STEP))
}

/// The stream of random numbers of a seed.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The stream of a seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub const fn next_u64(&mut self) -> u64 {
        let next = split_mix(self.0);
        self.0 = self.0.wrapping_add(STEP);
        next
    }

    /// A number below `end`, which must not be 0.
    pub const fn below(&mut self, end: u64) -> u64 {
        self.next_u64() % end
    }

    /// True with this probability, 0.0 to 1.0.
    pub fn chance(&mut self, probability: f64) -> bool {
        ((self.next_u64() >> 11) as f64) < probability * (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_numbers_of_a_seed_are_pinned() {
        let mut random = Random::new(1_234_567);
        assert_eq!(random.next_u64(), 6_457_827_717_110_365_317);
        assert_eq!(random.next_u64(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn chances_are_kept_at_their_edges() {
        let mut random = Random::new(7);
        assert!((0..1000).all(|_| random.chance(1.0)));
        assert!((0..1000).all(|_| !random.chance(0.0)));
        let half = (0..10_000).filter(|_| random.chance(0.5)).count();
        assert!((4_500..5_500).contains(&half), "{half}");
    }
}
