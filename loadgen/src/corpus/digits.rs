//! Writes numbers as text, in place or appended, without allocation.

use crate::rng::Rng;

const PAIRS: &[u8; 200] = b"0001020304050607080910111213141516171819\
2021222324252627282930313233343536373839\
4041424344454647484950515253545556575859\
6061626364656667686970717273747576777879\
8081828384858687888990919293949596979899";

/// Most decimal digits that [`random_number`] draws at once.
pub(crate) const DIGITS_MAX: usize = 18;

const POWERS: [u64; DIGITS_MAX + 1] = {
    let mut powers = [1; DIGITS_MAX + 1];
    let mut i = 1;
    while i <= DIGITS_MAX {
        powers[i] = powers[i - 1] * 10;
        i += 1;
    }
    powers
};

/// Fills `out` with the last digits of `value`, zeros in front.
#[inline]
pub(crate) fn write_digits(out: &mut [u8], mut value: u64) {
    let mut end = out.len();
    while end >= 2 {
        let pair = (value % 100) as usize * 2;
        value /= 100;
        out[end - 2..end].copy_from_slice(&PAIRS[pair..pair + 2]);
        end -= 2;
    }
    if end == 1 {
        out[0] = b'0' + (value % 10) as u8;
    }
}

/// Appends `value` in decimal.
#[inline]
pub(crate) fn push_number(out: &mut Vec<u8>, value: u64) {
    let digits = value.checked_ilog10().map_or(1, |log| log as usize + 1);
    let start = out.len();
    out.resize(start + digits, b'0');
    write_digits(&mut out[start..], value);
}

/// Fills `out` (at most [`DIGITS_MAX`] bytes) with a random number of that many digits; without
/// `leading_zero` the first of them is 1 to 9.
#[inline]
pub(crate) fn random_number(out: &mut [u8], rng: &mut Rng, leading_zero: bool) {
    let limit = POWERS[out.len()];
    let least = if leading_zero { 0 } else { limit / 10 };
    write_digits(out, least + rng.below(limit - least));
}

/// Fills `out` with random digits of base 16 from `alphabet`.
#[inline]
pub(crate) fn random_hex(out: &mut [u8], rng: &mut Rng, alphabet: &[u8; 16]) {
    for part in out.chunks_mut(16) {
        let mut bits = rng.next();
        for byte in part {
            *byte = alphabet[(bits & 15) as usize];
            bits >>= 4;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_fill_their_width() {
        let mut out = [b'x'; 5];
        write_digits(&mut out, 42);
        assert_eq!(&out, b"00042");
        write_digits(&mut out, 1_234_567);
        assert_eq!(&out, b"34567");
    }

    #[test]
    fn numbers_are_appended_as_std_formats_them() {
        for value in [0, 9, 10, 99, 100, 12_345, u64::MAX] {
            let mut out = Vec::new();
            push_number(&mut out, value);
            assert_eq!(out, value.to_string().into_bytes());
        }
    }

    #[test]
    fn random_numbers_keep_their_width_and_leading_digit() {
        let mut rng = Rng::new(1);
        for width in 1..=DIGITS_MAX {
            for _ in 0..50 {
                let mut out = [b'x'; DIGITS_MAX];
                random_number(&mut out[..width], &mut rng, false);
                assert!(out[..width].iter().all(u8::is_ascii_digit));
                assert!(out[0] != b'0' || width == 1);
            }
        }
    }
}
