//! The footer of a store segment: which slabs it has, what it holds, which volume it belongs to, which
//! inputs it replaces. It
//! is the last thing in the file; a tail of fixed size at the very end says where it starts.
//! `docs/format-store.md` §8 has the byte table.
//!
//! Invariants: the footer repeats each slab's trailer byte for byte; slabs follow each other
//! without a gap from offset 0 and neither their spans nor their ULID ranges overlap (checked on
//! decoding). Whatever a footer says of a slab is verified against the slab before it is used. A
//! coverage that is known in full counts as many records as the slabs do.

use crate::damage::DamageKind;
use crate::identity::NodeId;
use crate::limits::{
    FOOTER_BYTES_MAX, FOOTER_INPUTS_MAX, FOOTER_TOPICS_MAX, SEGMENT_SLABS_MAX, TOPIC_LEN_MAX,
};
use crate::topic::Topic;
use crate::ulid::Ulid;

use super::coverage::{Coverage, Digest};
use super::fields::{Put, Take, ends_with_checksum};
use super::index::TopicStats;
use super::name::SegmentId;
use super::slab::{SlabTrailer, TRAILER_LEN};
use super::volume::{Volume, VolumeId};

/// First bytes of a footer.
pub const FOOTER_MAGIC: [u8; 8] = *b"\x89OKLFTR\n";
/// First bytes of the tail.
pub const TAIL_MAGIC: [u8; 8] = *b"\x89OKLEOF\n";
/// Version of footer and tail.
pub const FOOTER_VERSION: u16 = 2;
/// Length of the tail, bytes.
pub const TAIL_LEN: usize = 32;

const MALFORMED: DamageKind = DamageKind::Malformed("footer");

/// A slab and where it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlabEntry {
    /// Where it starts in the file, bytes.
    pub offset: u64,
    /// What its trailer says.
    pub trailer: SlabTrailer,
}

/// An ingest segment of which all that its digest names is in a store segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IngestInput {
    /// Its identity.
    pub id: u128,
    /// Of the coverage that was taken from it.
    pub digest: Digest,
}

/// What a segment was made from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inputs {
    /// Ingest segments.
    pub ingest: Vec<IngestInput>,
    /// Store segments.
    pub store: Vec<SegmentId>,
}

/// The footer's contents.
#[derive(Debug, Clone)]
pub struct Footer {
    /// The segment's identity, as in its name.
    pub id: SegmentId,
    /// The volume that it belongs to.
    pub volume: Volume,
    /// Slabs in ULID order.
    pub slabs: Vec<SlabEntry>,
    /// Totals per topic, by name; at most [`FOOTER_TOPICS_MAX`].
    pub topics: Vec<TopicStats>,
    /// Whether all topics are listed.
    pub topics_complete: bool,
    /// Which records it holds.
    pub coverage: Coverage,
    /// What it replaces.
    pub inputs: Inputs,
}

impl Footer {
    /// First and last record, unless there are no slabs.
    pub fn range(&self) -> Option<(Ulid, Ulid)> {
        Some((self.slabs.first()?.trailer.first, self.slabs.last()?.trailer.last))
    }

    /// Records of all slabs.
    pub fn record_count(&self) -> u64 {
        self.slabs.iter().map(|s| s.trailer.record_count).sum()
    }

    /// Text of all slabs, bytes.
    pub fn text_bytes(&self) -> u64 {
        self.slabs.iter().map(|s| s.trailer.text_bytes).sum()
    }

    /// Where the footer starts: behind the last slab.
    pub fn offset(&self) -> u64 {
        self.slabs.last().map_or(0, |s| s.offset + s.trailer.len)
    }

    /// Footer and tail as stored behind the last slab.
    pub fn encode(&self) -> Vec<u8> {
        let mut put = Put::default();
        put.bytes(&FOOTER_MAGIC).u16(FOOTER_VERSION).u8(u8::from(self.topics_complete)).u8(0);
        put.u32(self.slabs.len() as u32).u64(self.id.0).u64(self.record_count());
        put.u64(self.text_bytes());
        put.u128(self.volume.id.0).u128(self.volume.opener.0).u64(self.volume.opened_ms);
        for slab in &self.slabs {
            put.u64(slab.offset).bytes(&slab.trailer.encode());
        }
        put.u32(self.topics.len() as u32);
        for stats in &self.topics {
            put.u8(stats.topic.as_str().len() as u8).bytes(stats.topic.as_str().as_bytes());
            put.u64(stats.record_count).u64(stats.text_bytes);
            put.u64(stats.first_ms).u64(stats.last_ms);
        }
        self.coverage.put(&mut put);
        put.u32(self.inputs.ingest.len() as u32);
        for input in &self.inputs.ingest {
            put.u128(input.id).u128(input.digest.0);
        }
        put.u32(self.inputs.store.len() as u32);
        for id in &self.inputs.store {
            put.u64(id.0);
        }
        put.checksum();
        let mut bytes = put.0;
        let file_len = self.offset() + (bytes.len() + TAIL_LEN) as u64;
        bytes.extend_from_slice(&Tail { footer_len: bytes.len() as u32, file_len }.encode());
        bytes
    }

    /// Reads a footer that starts at `offset` in its file.
    pub fn decode(bytes: &[u8], offset: u64) -> Result<Self, DamageKind> {
        let mut take = Take(bytes);
        if take.bytes(FOOTER_MAGIC.len()) != Some(&FOOTER_MAGIC) {
            return Err(MALFORMED);
        }
        if !ends_with_checksum(bytes) {
            return Err(DamageKind::Checksum("footer"));
        }
        let version = take.u16().ok_or(MALFORMED)?;
        if version != FOOTER_VERSION {
            return Err(DamageKind::Version(version));
        }
        Self::fields(&mut take)
            .filter(|footer| take.0.len() == 4 && footer.slabs_are_possible(offset))
            .ok_or(MALFORMED)
    }

    fn fields(take: &mut Take<'_>) -> Option<Self> {
        let topics_complete = take.u8()? == 1;
        take.u8()?;
        let slab_count = take.u32().filter(|&n| n as usize <= SEGMENT_SLABS_MAX)?;
        let (id, records, text_bytes) = (take.u64()?, take.u64()?, take.u64()?);
        let (volume, opener, opened_ms) = (take.u128()?, take.u128()?, take.u64()?);
        let volume = Volume { id: VolumeId(volume), opener: NodeId(opener), opened_ms };
        // Vectors grow as entries are read, so that a count alone allocates nothing.
        let mut slabs = Vec::new();
        for _ in 0..slab_count {
            let offset = take.u64()?;
            let trailer = SlabTrailer::decode(take.bytes(TRAILER_LEN)?).ok()?;
            slabs.push(SlabEntry { offset, trailer });
        }
        let topics = Self::take_topics(take)?;
        let coverage = Coverage::take(take)?;
        let mut inputs = Inputs::default();
        for _ in 0..take.u32().filter(|&n| n as usize <= FOOTER_INPUTS_MAX)? {
            inputs.ingest.push(IngestInput { id: take.u128()?, digest: Digest(take.u128()?) });
        }
        for _ in 0..take.u32().filter(|&n| n as usize <= FOOTER_INPUTS_MAX)? {
            inputs.store.push(SegmentId(take.u64()?));
        }
        let id = SegmentId(id);
        let footer = Self { id, volume, slabs, topics, topics_complete, coverage, inputs };
        let sum = |field: fn(&SlabEntry) -> u64| {
            footer.slabs.iter().map(field).try_fold(0u64, u64::checked_add)
        };
        let agrees = sum(|s| s.trailer.record_count) == Some(records)
            && sum(|s| s.trailer.text_bytes) == Some(text_bytes)
            && footer.coverage.may_be_of(records);
        agrees.then_some(footer)
    }

    fn take_topics(take: &mut Take<'_>) -> Option<Vec<TopicStats>> {
        let mut topics: Vec<TopicStats> = Vec::new();
        for _ in 0..take.u32().filter(|&n| n as usize <= FOOTER_TOPICS_MAX)? {
            let len = usize::from(take.u8()?);
            let stats = TopicStats {
                topic: Topic::new(take.bytes(len)?).ok()?,
                record_count: take.u64()?,
                text_bytes: take.u64()?,
                first_ms: take.u64()?,
                last_ms: take.u64()?,
            };
            if !stats.is_possible() || topics.last().is_some_and(|t| t.topic >= stats.topic) {
                return None;
            }
            topics.push(stats);
        }
        Some(topics)
    }

    /// Whether whoever reads it believes it, if it starts at `offset`: what it claims is possible, and
    /// within the bounds.
    pub(super) fn is_readable(&self, offset: u64) -> bool {
        let records = self.record_count();
        self.slabs_are_possible(offset)
            && self.coverage.may_be_of(records)
            && self.slabs.len() <= SEGMENT_SLABS_MAX
            && self.topics.len() <= FOOTER_TOPICS_MAX
            && self.inputs.ingest.len().max(self.inputs.store.len()) <= FOOTER_INPUTS_MAX
    }

    fn slabs_are_possible(&self, footer_offset: u64) -> bool {
        let mut end = 0u64;
        let mut last: Option<Ulid> = None;
        for slab in &self.slabs {
            if slab.offset != end || last.is_some_and(|last| last >= slab.trailer.first) {
                return false;
            }
            let Some(next) = end.checked_add(slab.trailer.len) else { return false };
            end = next;
            last = Some(slab.trailer.last);
        }
        !self.slabs.is_empty() && end == footer_offset
    }
}

/// Where the footer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tail {
    /// Length of the footer, bytes.
    pub footer_len: u32,
    /// Length of the file, bytes.
    pub file_len: u64,
}

impl Tail {
    fn encode(&self) -> Vec<u8> {
        let mut put = Put(Vec::with_capacity(TAIL_LEN));
        put.bytes(&TAIL_MAGIC).u16(FOOTER_VERSION).u16(0).u32(self.footer_len);
        put.u64(self.file_len).u32(0).checksum();
        put.0
    }

    /// Reads the last [`TAIL_LEN`] bytes of a file of `file_len` bytes.
    pub fn decode(bytes: &[u8; TAIL_LEN], file_len: u64) -> Result<Self, DamageKind> {
        const PART: &str = "footer tail";
        let mut take = Take(bytes);
        if take.bytes(TAIL_MAGIC.len()) != Some(&TAIL_MAGIC) {
            return Err(DamageKind::Malformed(PART));
        }
        if !ends_with_checksum(bytes) {
            return Err(DamageKind::Checksum(PART));
        }
        let version = take.u16().ok_or(DamageKind::Malformed(PART))?;
        if version != FOOTER_VERSION {
            return Err(DamageKind::Version(version));
        }
        let tail =
            take.u16().and_then(|_| Some(Self { footer_len: take.u32()?, file_len: take.u64()? }));
        tail.filter(|tail| {
            tail.file_len == file_len
                && tail.footer_len as usize <= FOOTER_BYTES_MAX
                && u64::from(tail.footer_len) + TAIL_LEN as u64 <= file_len
        })
        .ok_or(DamageKind::Malformed(PART))
    }

    /// Where the footer starts, bytes.
    pub const fn footer_offset(&self) -> u64 {
        self.file_len - TAIL_LEN as u64 - self.footer_len as u64
    }
}

const _: () = assert!(TOPIC_LEN_MAX <= u8::MAX as usize, "a name's length is one byte");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::coverage::Interval;
    use crate::store::slab::Section;
    use proptest::prelude::*;

    fn footer() -> Footer {
        let slab = |n: u64| SlabEntry {
            offset: n * 1024,
            trailer: SlabTrailer {
                slab_id: n,
                len: 1024,
                block_count: 1,
                record_count: 5,
                text_bytes: 50,
                first: Ulid(u128::from(n) * 10 + 1),
                last: Ulid(u128::from(n) * 10 + 5),
                index: Section { offset: 128, len: 100, crc: 1 },
                signatures: Section { offset: 256, len: 0, crc: 0 },
                ..SlabTrailer::default()
            },
        };
        let topic = |name: &[u8]| TopicStats {
            topic: Topic::new(name).unwrap(),
            record_count: 5,
            text_bytes: 50,
            first_ms: 1,
            last_ms: 2,
        };
        Footer {
            id: SegmentId(3),
            slabs: vec![slab(0), slab(1)],
            topics: vec![topic(b"a"), topic(b"b")],
            topics_complete: true,
            volume: Volume { id: VolumeId(1 << 90), opener: NodeId(5), opened_ms: 6 },
            coverage: Coverage::of(vec![
                Interval { stream: 0, first_ms: 0, from: 1, to: 5, last_ms: 0 },
                Interval { stream: 0, first_ms: 0, from: 11, to: 15, last_ms: 0 },
            ]),
            inputs: Inputs {
                ingest: vec![IngestInput { id: 1 << 100, digest: Digest(7) }],
                store: vec![SegmentId(8)],
            },
        }
    }

    fn split(footer: &Footer) -> (Vec<u8>, [u8; TAIL_LEN]) {
        let bytes = footer.encode();
        let (body, tail) = bytes.split_last_chunk::<TAIL_LEN>().unwrap();
        (body.to_vec(), *tail)
    }

    #[test]
    fn a_footer_round_trips_and_its_tail_finds_it() {
        let (body, tail) = split(&footer());
        let file_len = 2048 + (body.len() + TAIL_LEN) as u64;
        let tail = Tail::decode(&tail, file_len).unwrap();
        assert_eq!((tail.footer_offset(), tail.footer_len as usize), (2048, body.len()));
        let back = Footer::decode(&body, 2048).unwrap();
        assert_eq!(back.encode(), footer().encode());
        assert_eq!((back.volume, back.inputs), (footer().volume, footer().inputs));
        assert!(back.coverage.is_same(&footer().coverage));
        assert!(Footer::decode(&body, 2049).is_err(), "a footer that is somewhere else");
    }

    #[test]
    fn every_flipped_bit_of_footer_and_tail_is_noticed() {
        let (body, tail) = split(&footer());
        let file_len = 2048 + (body.len() + TAIL_LEN) as u64;
        for bit in 0..body.len() * 8 {
            let mut body = body.clone();
            body[bit / 8] ^= 1 << (bit % 8);
            assert!(Footer::decode(&body, 2048).is_err(), "bit {bit}");
        }
        for bit in 0..TAIL_LEN * 8 {
            let mut tail = tail;
            tail[bit / 8] ^= 1 << (bit % 8);
            assert!(Tail::decode(&tail, file_len).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn slabs_that_overlap_or_leave_a_gap_are_refused() {
        let mut overlap = footer();
        overlap.slabs[1].trailer.first = Ulid(5);
        let mut gap = footer();
        gap.slabs[1].offset += 64;
        for bad in [overlap, gap] {
            assert_eq!(Footer::decode(&split(&bad).0, bad.offset()).err(), Some(MALFORMED));
        }
    }

    #[test]
    fn a_coverage_that_counts_other_records_than_the_slabs_is_refused() {
        let mut bad = footer();
        bad.coverage = bad.coverage.intersection(&Coverage::of(vec![bad.coverage.intervals()[0]]));
        assert_eq!(Footer::decode(&split(&bad).0, bad.offset()).err(), Some(MALFORMED));
        bad.coverage = bad.coverage.of_records(10);
        assert!(Footer::decode(&split(&bad).0, bad.offset()).is_ok(), "it says that it is not all");
    }

    proptest! {
        #[test]
        fn no_bytes_make_decoding_panic(bytes: Vec<u8>) {
            let mut put = Put::default();
            put.bytes(&FOOTER_MAGIC).u16(FOOTER_VERSION).bytes(&bytes).checksum();
            let _ = Footer::decode(&put.0, 0);
        }
    }
}
