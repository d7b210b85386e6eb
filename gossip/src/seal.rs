//! The outside of a datagram: who sent it to whom, and a seal. With a secret the inside is encrypted and
//! authenticated, the outside authenticated; without one a checksum finds what was damaged on its way,
//! and nobody is kept out. `docs/protocol-cluster.md` has the byte table.
//!
//! Invariants: what does not open is never looked at; a datagram that was sent to a former process of this
//! node does not open; one datagram costs one derivation of a key and one decryption at most, however
//! many secrets are valid. A key belongs to one secret and one sending process, whose datagrams are
//! counted, so that no pair of key and nonce is used twice.

use std::fmt;

use ring::{aead, hkdf};

use crate::bytes_in::BytesIn;
use crate::limits::{DATAGRAM_BYTES_MAX, SECRET_BYTES_MIN, SECRETS_MAX};
use crate::member::ProcessId;

/// First bytes, the last of which is the version of this layout.
const MAGIC: [u8; 3] = *b"OKG";
/// Version of the outside.
const LAYOUT: u8 = 1;
/// Bytes before the inside.
pub(crate) const OUTSIDE_BYTES: usize = 36;
/// Bytes behind the inside of a sealed datagram.
pub(crate) const TAG_BYTES: usize = 16;
/// Room for an inside.
pub(crate) const INSIDE_BYTES_MAX: usize = DATAGRAM_BYTES_MAX - OUTSIDE_BYTES - TAG_BYTES;
const SEALED: u8 = 1;

/// What a datagram is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// "This is me: who are you, and what do you know of me?"
    Ask,
    /// The answer.
    Answer,
    /// What SWIM says.
    Swim,
    /// Who was forgotten.
    Tombstones,
    /// "I cannot read you": never sealed, believed for nothing but a line in the log.
    Refusal,
}

impl Kind {
    const ALL: [Self; 5] = [Self::Ask, Self::Answer, Self::Swim, Self::Tombstones, Self::Refusal];

    const fn number(self) -> u8 {
        self as u8 + 1
    }
}

/// The outside of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outside {
    pub(crate) kind: Kind,
    pub(crate) from: ProcessId,
    /// 0: whoever it is.
    pub(crate) to: ProcessId,
    /// Counts what the sender sent, from 1.
    pub(crate) number: u64,
}

/// Why a datagram does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unopened {
    /// Not one of ours, or damaged on its way.
    Garbage,
    /// Of another version of the outside.
    OtherLayout(u8),
    /// Its sender has no secret, this node has.
    Unsealed(Outside),
    /// Its sender has a secret, this node has none.
    Sealed(Outside),
    /// Its sender's secret is none of this node's.
    OtherSecret(Outside),
}

/// A secret, ready to derive keys from.
struct Secret {
    root: hkdf::Prk,
    /// Tells which secret a datagram is sealed with, and nothing about it.
    tag: [u8; 4],
}

/// The secrets of a cluster: the first one is used, all are accepted.
pub struct Secrets(Vec<Secret>);

/// Why secrets are not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretError {
    /// That one, counted from 1, is too short.
    Short(usize),
    /// There are too many.
    Many(usize),
}

impl fmt::Display for SecretError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short(which) => write!(
                f,
                "secret {which} is shorter than {SECRET_BYTES_MIN} bytes: take a longer one, such as \
                 the output of `openssl rand -base64 32`"
            ),
            Self::Many(count) => {
                write!(f, "{count} secrets are too many: {SECRETS_MAX} may be valid at once")
            }
        }
    }
}

impl std::error::Error for SecretError {}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} secrets", self.0.len())
    }
}

impl Secrets {
    /// No secret: everybody who reaches the port may say anything.
    pub const NONE: Self = Self(Vec::new());

    /// Secrets, the one that is used first.
    pub fn new<S: AsRef<[u8]>>(secrets: &[S]) -> Result<Self, SecretError> {
        if secrets.len() > SECRETS_MAX {
            return Err(SecretError::Many(secrets.len()));
        }
        let short = secrets.iter().position(|secret| secret.as_ref().len() < SECRET_BYTES_MIN);
        match short {
            Some(at) => Err(SecretError::Short(at + 1)),
            None => Ok(Self(secrets.iter().map(|secret| Secret::new(secret.as_ref())).collect())),
        }
    }

    /// Whether there is none.
    pub const fn is_none(&self) -> bool {
        self.0.is_empty()
    }

    /// A datagram.
    pub(crate) fn close(&self, outside: Outside, inside: &[u8]) -> Vec<u8> {
        assert!(inside.len() <= INSIDE_BYTES_MAX, "{} bytes do not fit", inside.len());
        let secret = self.0.first().filter(|_| outside.kind != Kind::Refusal);
        let mut out = Vec::with_capacity(OUTSIDE_BYTES + inside.len() + TAG_BYTES);
        out.extend(MAGIC);
        out.extend([LAYOUT, outside.kind.number(), u8::from(secret.is_some()), 0, 0]);
        out.extend(outside.from.0.to_le_bytes());
        out.extend(outside.to.0.to_le_bytes());
        out.extend(outside.number.to_le_bytes());
        if let Some(secret) = secret {
            out.extend(secret.tag);
            let mut sealed = inside.to_vec();
            let aad = aead::Aad::from(&out);
            let key = secret.key(outside.from);
            key.seal_in_place_append_tag(nonce(outside.number), aad, &mut sealed)
                .expect("a datagram is far below what a key can seal");
            out.extend(sealed);
        } else {
            out.extend(checksum(&out, inside).to_le_bytes());
            out.extend(inside);
        }
        out
    }

    /// The outside and the inside of a datagram.
    pub(crate) fn open(&self, datagram: &[u8]) -> Result<(Outside, Vec<u8>), Unopened> {
        let (head, inside) = datagram.split_at_checked(OUTSIDE_BYTES).ok_or(Unopened::Garbage)?;
        let (outside, is_sealed, check) = outside(head)?;
        match (is_sealed, self.is_none() || outside.kind == Kind::Refusal) {
            (false, true) => {
                let is_whole = check == checksum(&head[..OUTSIDE_BYTES - 4], inside).to_le_bytes();
                if is_whole { Ok((outside, inside.to_vec())) } else { Err(Unopened::Garbage) }
            }
            (false, false) => Err(Unopened::Unsealed(outside)),
            (true, true) => Err(Unopened::Sealed(outside)),
            (true, false) => {
                let secret = self.0.iter().find(|secret| secret.tag == check);
                let secret = secret.ok_or(Unopened::OtherSecret(outside))?;
                let mut sealed = inside.to_vec();
                let key = secret.key(outside.from);
                let opened =
                    key.open_in_place(nonce(outside.number), aead::Aad::from(head), &mut sealed);
                let len = opened.map_err(|_| Unopened::Garbage)?.len();
                sealed.truncate(len);
                Ok((outside, sealed))
            }
        }
    }
}

impl Secret {
    fn new(secret: &[u8]) -> Self {
        let root = hkdf::Salt::new(hkdf::HKDF_SHA256, b"oklogd gossip 1").extract(secret);
        let mut tag = [0; 32];
        let filled = root.expand(&[b"tag"], hkdf::HKDF_SHA256).and_then(|okm| okm.fill(&mut tag));
        filled.expect("32 bytes can be derived");
        let [a, b, c, d, ..] = tag;
        Self { root, tag: [a, b, c, d] }
    }

    /// The key of what one process sends.
    fn key(&self, sender: ProcessId) -> aead::LessSafeKey {
        let info = [&b"key"[..], &sender.0.to_le_bytes()];
        let key = self.root.expand(&info, &aead::CHACHA20_POLY1305);
        aead::LessSafeKey::new(key.expect("32 bytes can be derived").into())
    }
}

fn nonce(number: u64) -> aead::Nonce {
    let mut nonce = [0; 12];
    nonce[..8].copy_from_slice(&number.to_le_bytes());
    aead::Nonce::assume_unique_for_key(nonce)
}

fn checksum(head: &[u8], inside: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(head);
    hasher.update(inside);
    hasher.finalize()
}

/// The outside, whether the inside is sealed, and the tag of its secret or its checksum.
fn outside(head: &[u8]) -> Result<(Outside, bool, [u8; 4]), Unopened> {
    let mut bytes = BytesIn(head);
    let (magic, layout) = (bytes.array(), bytes.u8());
    match layout.filter(|_| magic == Some(MAGIC)) {
        Some(LAYOUT) => {}
        Some(other) => return Err(Unopened::OtherLayout(other)),
        None => return Err(Unopened::Garbage),
    }
    let mut rest = || {
        let kind = bytes.u8()?;
        let kind = Kind::ALL.into_iter().find(|known| known.number() == kind)?;
        let flags = bytes.u8().filter(|flags| *flags <= SEALED)?;
        bytes.u16().filter(|reserved| *reserved == 0)?;
        // 0 is nobody.
        let from = ProcessId(bytes.u64().filter(|from| *from != 0)?);
        let to = ProcessId(bytes.u64()?);
        let number = bytes.u64()?;
        Some((Outside { kind, from, to, number }, flags == SEALED, bytes.array()?))
    };
    rest().ok_or(Unopened::Garbage)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTSIDE: Outside =
        Outside { kind: Kind::Swim, from: ProcessId(7), to: ProcessId(9), number: 3 };

    fn secrets(names: &[&str]) -> Secrets {
        Secrets::new(names).unwrap()
    }

    const OLD: &str = "an old secret of ours";
    const NEW: &str = "the new secret of ours";

    #[test]
    fn a_secret_is_rotated_without_a_moment_in_which_nodes_do_not_understand_each_other() {
        let steps = [&[OLD][..], &[OLD, NEW], &[NEW, OLD], &[NEW]];
        for (before, after) in steps.iter().zip(&steps[1..]) {
            for (from, to) in [(before, after), (after, before), (after, after)] {
                let datagram = secrets(from).close(OUTSIDE, b"inside");
                assert_eq!(secrets(to).open(&datagram), Ok((OUTSIDE, b"inside".to_vec())));
            }
        }
        let datagram = secrets(&[OLD]).close(OUTSIDE, b"inside");
        assert_eq!(secrets(&[NEW]).open(&datagram), Err(Unopened::OtherSecret(OUTSIDE)));
    }

    #[test]
    fn who_has_a_secret_and_who_has_none_know_that_of_each_other() {
        let sealed = secrets(&[OLD]).close(OUTSIDE, b"inside");
        let unsealed = Secrets::NONE.close(OUTSIDE, b"inside");
        assert_eq!(Secrets::NONE.open(&sealed), Err(Unopened::Sealed(OUTSIDE)));
        assert_eq!(secrets(&[OLD]).open(&unsealed), Err(Unopened::Unsealed(OUTSIDE)));
    }

    #[test]
    fn no_bit_of_a_datagram_can_be_changed_and_nothing_of_the_inside_is_seen() {
        for secrets in [Secrets::NONE, secrets(&[NEW, OLD])] {
            let datagram = secrets.close(OUTSIDE, b"the inside");
            for bit in 0..datagram.len() * 8 {
                let mut changed = datagram.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                assert!(secrets.open(&changed).is_err(), "bit {bit}");
            }
            for len in 0..datagram.len() {
                assert!(secrets.open(&datagram[..len]).is_err(), "cut at {len}");
            }
            let is_seen = datagram.windows(6).any(|bytes| bytes == b"inside");
            assert_eq!(is_seen, secrets.is_none());
        }
    }

    #[test]
    fn the_same_said_twice_or_by_two_looks_different_each_time() {
        let secrets = secrets(&[NEW]);
        let said = |from, number| {
            let outside = Outside { from: ProcessId(from), number, ..OUTSIDE };
            secrets.close(outside, b"inside").split_off(OUTSIDE_BYTES)
        };
        assert_ne!(said(1, 1), said(1, 2));
        assert_ne!(said(1, 1), said(2, 1));
    }

    #[test]
    fn short_secrets_and_too_many_are_refused_by_their_place() {
        let refused = |secrets: &[&str]| Secrets::new(secrets).unwrap_err();
        assert_eq!(refused(&[OLD, "short"]), SecretError::Short(2));
        assert_eq!(refused(&[OLD; SECRETS_MAX + 1]), SecretError::Many(SECRETS_MAX + 1));
    }
}
