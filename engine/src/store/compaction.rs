//! Which segments to merge next: a pure function of what there is.
//!
//! Size tiers: a segment's class is how many factors of 16 it is below the largest size. Sixteen
//! neighbours of a class become one of the next; of a small class forty-eight, which as a rule become
//! one of the class after next. So a record is written once when it is gathered and once for each
//! merge on its way: once for gathers of 30 MB, twice for those of 1 MB, three times for less. In the
//! largest class only merges of many are worth it.
//!
//! Segments that hold copies of the same time span are merged first once too many lie over one
//! another, since each query in that span has to open them all.
//!
//! A segment expires as a whole, when its newest record does: what is merged must not span more
//! time than a part of the retention, or old records would stay for as much longer.
//!
//! Compaction never crosses volumes: each is planned for itself. In one that nobody adds to any more
//! there is nothing to wait for: its small segments become as few as possible, or what each volume
//! leaves would add up. Which one is open is said by who opens volumes, not guessed from what they say.
//!
//! Invariants: a plan is of one volume, and of segments of which it is known; it never exceeds the
//! largest size, the room nor, where one is set, the longest span; it has at least two inputs, so that planning and merging end; segments of half the largest
//! size and more are only merged when they overlap too deep.

use std::collections::BTreeMap;

use crate::ulid::Ulid;

use super::name::SegmentId;
use super::segment::SegmentMeta;
use super::volume::VolumeId;

/// What bounds compaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompactionLimits {
    /// Largest segment that is made, bytes.
    pub segment_bytes_max: u64,
    /// Segments of one class that are merged at once.
    pub group_max: usize,
    /// The same for small segments, those below 1/256 of the largest size: a low rate makes many,
    /// and would else need one level of merges more.
    pub small_group_max: usize,
    /// Fewest that are worth it when size or time bounds the group.
    pub group_min: usize,
    /// The same for the largest class: all of it is written again to have fewer files, and what a
    /// query costs is a matter of slabs, of which there are no fewer.
    pub large_group_min: usize,
    /// Most inputs of a plan, smaller ones in between included: each is open at once.
    pub inputs_max: usize,
    /// Segments over one point from which on they are merged whatever their sizes.
    pub depth_max: usize,
    /// Longest time from the first to the last record of a segment that is made, milliseconds.
    pub span_ms_max: u64,
    /// Room for the output, bytes: what needs more is left for later, and holds back nothing that
    /// fits.
    pub room_bytes: u64,
}

impl Default for CompactionLimits {
    fn default() -> Self {
        Self {
            segment_bytes_max: crate::limits::STORE_SEGMENT_SIZE_MAX,
            group_max: 16,
            small_group_max: 48,
            group_min: 4,
            large_group_min: 6,
            inputs_max: 64,
            depth_max: 8,
            span_ms_max: u64::MAX,
            room_bytes: u64::MAX,
        }
    }
}

/// Why segments are merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Too many over one point.
    Overlap,
    /// Enough of a size.
    Tier,
}

/// Segments to be merged into one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// In the order of their first records.
    pub inputs: Vec<SegmentId>,
    /// Why.
    pub reason: Reason,
}

/// Factor between classes.
const CLASS_FACTOR: u64 = 16;
/// The last class: everything below the largest size over 16⁴ (32 KiB by default).
const CLASS_LAST: u32 = 4;
/// The first class of small segments.
const CLASS_SMALL: u32 = 2;

/// The next thing to merge, if anything is worth it; `open` is the volume that is added to. Order does
/// not matter; segments that must not be touched are left out by the caller.
pub fn plan(
    segments: &[SegmentMeta],
    open: Option<VolumeId>,
    limits: &CompactionLimits,
) -> Option<Plan> {
    let volumes = volumes_of(segments, open);
    let overlap = || volumes.iter().find_map(|volume| overlap_group(&volume.sorted, limits));
    let rest = || {
        let mut closed = volumes.iter().filter(|volume| !volume.is_open);
        closed.find_map(|volume| rest_group(&volume.sorted, limits))
    };
    let tier = |class| volumes.iter().find_map(|volume| tier_group(volume, class, limits));
    let (group, reason) = overlap().map(|group| (group, Reason::Overlap)).or_else(|| {
        let group = rest().or_else(|| (0..=CLASS_LAST).rev().find_map(tier))?;
        Some((group, Reason::Tier))
    })?;
    assert!(group.len() >= 2, "a plan makes segments fewer, or planning would not end");
    Some(Plan { inputs: group.iter().map(|s| s.id).collect(), reason })
}

/// The segments of a volume.
struct OfVolume {
    /// In the order of their first records.
    sorted: Vec<SegmentMeta>,
    /// It is added to.
    is_open: bool,
}

/// The segments of each volume.
fn volumes_of(segments: &[SegmentMeta], open: Option<VolumeId>) -> Vec<OfVolume> {
    let mut groups: BTreeMap<VolumeId, Vec<SegmentMeta>> = BTreeMap::new();
    for segment in segments {
        let Some(volume) = segment.volume else { continue };
        groups.entry(volume.id).or_default().push(*segment);
    }
    let of_volume = |(id, mut sorted): (VolumeId, Vec<SegmentMeta>)| {
        sorted.sort_by_key(|s| (s.first, s.id));
        OfVolume { sorted, is_open: open == Some(id) }
    };
    groups.into_iter().map(of_volume).collect()
}

/// The room that the next merge would need, bytes, where want of room is all that there is no plan
/// for.
pub fn room_wanted_bytes(
    segments: &[SegmentMeta],
    open: Option<VolumeId>,
    limits: &CompactionLimits,
) -> Option<u64> {
    if plan(segments, open, limits).is_some() {
        return None;
    }
    let wanted = plan(segments, open, &CompactionLimits { room_bytes: u64::MAX, ..*limits })?;
    let inputs = segments.iter().filter(|s| wanted.inputs.contains(&s.id));
    Some(inputs.map(|s| s.file_bytes).sum())
}

fn bytes_of(group: &[SegmentMeta]) -> u64 {
    group.iter().map(|s| s.file_bytes).sum()
}

/// The smallest of the segments over the point that most of them cover, if too many do.
fn overlap_group(sorted: &[SegmentMeta], limits: &CompactionLimits) -> Option<Vec<SegmentMeta>> {
    let covering = |at: usize| {
        let point = sorted[at].first;
        sorted[..=at].iter().filter(move |s| s.last >= point)
    };
    // The deepest point is some segment's first record.
    let deepest = (0..sorted.len()).max_by_key(|&at| covering(at).count())?;
    let mut group: Vec<SegmentMeta> = covering(deepest).copied().collect();
    if group.len() <= limits.depth_max {
        return None;
    }
    group.sort_by_key(|s| (s.file_bytes, s.id));
    let mut sum = 0u64;
    let mut span: Option<(Ulid, Ulid)> = None;
    group.retain(|s| {
        let (first, last) = span.unwrap_or((s.first, s.last));
        let wider = (first.min(s.first), last.max(s.last));
        let bytes_max = limits.segment_bytes_max.min(limits.room_bytes);
        let fits = sum.saturating_add(s.file_bytes) <= bytes_max
            && span_ms(wider.0, wider.1) <= limits.span_ms_max;
        if fits {
            sum += s.file_bytes;
            span = Some(wider);
        }
        fits
    });
    group.truncate(limits.group_max);
    let count = group.len();
    group.sort_by_key(|s| (s.first, s.id));
    (count >= limits.group_min.max(2)).then_some(group)
}

const fn span_ms(first: Ulid, last: Ulid) -> u64 {
    last.ms().saturating_sub(first.ms())
}

fn class_of(bytes: u64, limits: &CompactionLimits) -> u32 {
    let mut floor = limits.segment_bytes_max / CLASS_FACTOR;
    for class in 0..CLASS_LAST {
        if bytes >= floor {
            return class;
        }
        floor /= CLASS_FACTOR;
    }
    CLASS_LAST
}

/// Neighbours of a class, with smaller ones that lie between them: a full group, or one that no
/// further neighbour fits into, by size or by time.
fn tier_group(
    volume: &OfVolume,
    class: u32,
    limits: &CompactionLimits,
) -> Option<Vec<SegmentMeta>> {
    let OfVolume { sorted, is_open } = volume;
    let is_full = |s: &SegmentMeta| s.file_bytes >= limits.segment_bytes_max / 2;
    let class_of = |s: &SegmentMeta| class_of(s.file_bytes, limits);
    let group_max = if class >= CLASS_SMALL { limits.small_group_max } else { limits.group_max };
    let group_min = if class == 0 { limits.large_group_min } else { limits.group_min };
    for (start, first) in sorted.iter().enumerate() {
        if is_full(first) || class_of(first) != class {
            continue;
        }
        let (mut members, mut sum) = (0, 0u64);
        let mut end = start;
        let mut is_closed = !is_open;
        let mut newest = first.last;
        for (at, segment) in sorted.iter().enumerate().skip(start) {
            // A larger neighbour ends the group, but smaller ones may still become members.
            if is_full(segment) || class_of(segment) < class {
                break;
            }
            sum = sum.saturating_add(segment.file_bytes);
            newest = newest.max(segment.last);
            let is_member = class_of(segment) == class;
            // Smaller ones behind the last member are no inputs, however many.
            if sum > limits.segment_bytes_max
                || is_member && at - start >= limits.inputs_max
                || span_ms(first.first, newest) > limits.span_ms_max
            {
                is_closed = true;
                break;
            }
            if is_member {
                members += 1;
                end = at;
            }
            if members == group_max {
                is_closed = true;
                break;
            }
        }
        let group = &sorted[start..=end];
        let has_room = bytes_of(group) <= limits.room_bytes;
        if is_closed && has_room && members >= group_min.max(2) {
            return Some(group.to_vec());
        }
    }
    None
}

/// Small neighbours of a volume that nobody adds to, whatever their sizes. Those of the largest class are
/// left to their tier: all of them would be written again for a few files less.
fn rest_group(sorted: &[SegmentMeta], limits: &CompactionLimits) -> Option<Vec<SegmentMeta>> {
    let bytes_max = limits.segment_bytes_max.min(limits.room_bytes);
    let mut group: Vec<SegmentMeta> = Vec::new();
    for segment in sorted {
        let newest = group.iter().map(|s| s.last).fold(segment.last, Ulid::max);
        let oldest = group.first().unwrap_or(segment).first;
        let is_large = class_of(segment.file_bytes, limits) == 0;
        let fits = bytes_of(&group).saturating_add(segment.file_bytes) <= bytes_max
            && span_ms(oldest, newest) <= limits.span_ms_max
            && group.len() < limits.inputs_max;
        if is_large || !fits {
            if group.len() > 1 {
                break;
            }
            group.clear();
        }
        if !is_large {
            group.push(*segment);
        }
    }
    (group.len() > 1).then_some(group)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::NodeId;
    use crate::store::volume::Volume;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;

    fn segment(id: u64, span: (u64, u64), file_bytes: u64) -> SegmentMeta {
        SegmentMeta {
            id: SegmentId(id),
            first: Ulid::from_parts(span.0, 1, id),
            last: Ulid::from_parts(span.1, 1, id),
            record_count: 1,
            text_bytes: file_bytes,
            file_bytes,
            volume: Some(volume(1)),
        }
    }

    fn volume(number: u64) -> Volume {
        let (id, opener) = (VolumeId(u128::from(number)), NodeId(1));
        Volume { id, opener, opened_ms: number }
    }

    /// While the last of their volumes is open.
    fn plan(segments: &[SegmentMeta], limits: &CompactionLimits) -> Option<Plan> {
        super::plan(segments, last_of(segments), limits)
    }

    fn room_wanted_bytes(segments: &[SegmentMeta], limits: &CompactionLimits) -> Option<u64> {
        super::room_wanted_bytes(segments, last_of(segments), limits)
    }

    fn last_of(segments: &[SegmentMeta]) -> Option<VolumeId> {
        segments.iter().filter_map(|s| Some(s.volume?.id)).max()
    }

    /// What merging does to the set, and how many bytes it wrote.
    fn apply(segments: &mut Vec<SegmentMeta>, plan: &Plan, next_id: u64) -> u64 {
        let (merged, kept): (Vec<_>, Vec<_>) =
            segments.drain(..).partition(|s| plan.inputs.contains(&s.id));
        assert!(merged.len() >= 2 && merged.len() == plan.inputs.len());
        let bytes = merged.iter().map(|s| s.file_bytes).sum();
        let first = merged.iter().map(|s| s.first).min().unwrap();
        let last = merged.iter().map(|s| s.last).max().unwrap();
        *segments = kept;
        segments.push(SegmentMeta { first, last, ..segment(next_id, (0, 0), bytes) });
        bytes
    }

    /// Bytes written per byte gathered, and the most segments at a time.
    fn amplification(count: u64, bytes: impl Fn(u64) -> u64) -> (f64, usize) {
        let limits = CompactionLimits::default();
        let (mut segments, mut gathered, mut written, mut most) = (Vec::new(), 0, 0, 0);
        for n in 0..count {
            // Each overlaps its predecessor a little, as shards flush at different times.
            segments.push(segment(n, (n * 3_000, n * 3_000 + 4_000), bytes(n)));
            gathered += bytes(n);
            written += bytes(n);
            let mut id = (n + 1) << 32;
            while let Some(plan) = plan(&segments, &limits) {
                written += apply(&mut segments, &plan, id);
                id += 1;
            }
            most = most.max(segments.len());
            assert!(segments.iter().all(|s| s.file_bytes <= limits.segment_bytes_max));
        }
        (written as f64 / gathered as f64, most)
    }

    #[test]
    fn a_trickle_is_written_at_most_four_times() {
        let (factor, most) = amplification(60_000, |_| 45_000);
        assert!(factor <= 4.0, "{factor}");
        // Two small classes of 47, one of 15.
        assert!(most <= 112, "{most} segments");
        let (factor, _) = amplification(20_000, |n| 20_000 + n * 7_919 % 80_000);
        assert!(factor <= 4.0, "{factor}");
    }

    #[test]
    fn sustained_full_gathers_are_rewritten_once() {
        for bytes in [100 * MIB, 127 * MIB, 128 * MIB, 130 * MIB] {
            let (factor, most) = amplification(400, |_| bytes);
            assert!(factor <= 2.1, "{bytes}: {factor}");
            assert!(most <= 400 / 10 + 20, "{bytes}: {most} segments");
        }
    }

    #[test]
    fn nothing_is_merged_across_volumes_and_nothing_of_which_none_is_known() {
        let limits = CompactionLimits::default();
        let of =
            |number, id| SegmentMeta { volume: number, ..segment(id, (id * 10, id * 10 + 5), MIB) };
        let mixed: Vec<_> = (0..80).map(|n| of(Some(volume(1 + n % 2)), n)).collect();
        let found = plan(&mixed, &limits).unwrap();
        assert_eq!(found.inputs, (0..40).map(|n| SegmentId(2 * n)).collect::<Vec<_>>());
        assert_eq!(plan(&(0..80).map(|n| of(None, n)).collect::<Vec<_>>(), &limits), None);
        let deep: Vec<_> = (0..12)
            .map(|n| SegmentMeta { volume: Some(volume(n % 2)), ..segment(n, (n, 100), MIB) })
            .collect();
        assert_eq!(plan(&deep[..8], &limits).map(|plan| plan.reason), Some(Reason::Tier));
        let restored = Volume { opener: NodeId(0), ..volume(7) };
        assert_eq!(plan(&[of(Some(restored), 1), of(Some(volume(1)), 2)], &limits), None);
    }

    #[test]
    fn the_volume_that_is_added_to_waits_for_more_whatever_the_others_say_of_their_time() {
        let limits = CompactionLimits::default();
        let of = |number, id| {
            let volume = Some(volume(number));
            SegmentMeta { volume, ..segment(id, (id * 10, id * 10 + 5), MIB) }
        };
        // The ninth was opened by a clock that was ahead.
        let segments: Vec<_> = (0..4).map(|n| of(9, n)).chain((4..8).map(|n| of(1, n))).collect();
        let inputs = |open| super::plan(&segments, open, &limits).map(|plan| plan.inputs);
        let ninth: Vec<_> = (0..4).map(SegmentId).collect();
        assert_eq!(inputs(Some(VolumeId(1))), Some(ninth));
        assert_eq!(inputs(Some(VolumeId(9))), Some((4..8).map(SegmentId).collect()));
        let only = |open| super::plan(&segments[4..], open, &limits);
        assert_eq!(only(Some(VolumeId(1))), None);
        assert!(only(None).is_some(), "nobody adds to it");
    }

    #[test]
    fn a_trickle_over_a_whole_retention_of_volumes_stays_few_segments() {
        const HOUR_MS: u64 = 3_600_000;
        let limits = CompactionLimits { span_ms_max: HOUR_MS, ..CompactionLimits::default() };
        let (mut segments, mut written) = (Vec::new(), 0);
        for n in 0..8 * 1_200 {
            let volume = Some(volume(n / 1_200));
            segments
                .push(SegmentMeta { volume, ..segment(n, (n * 3_000, n * 3_000 + 4_000), 45_000) });
            written += 45_000;
            let mut id = (n + 1) << 32;
            while let Some(plan) = plan(&segments, &limits) {
                let of = segments.iter().find(|s| s.id == plan.inputs[0]).unwrap().volume;
                written += apply(&mut segments, &plan, id);
                segments.last_mut().unwrap().volume = of;
                id += 1;
            }
        }
        assert!(segments.len() <= 120, "{}", segments.len());
        let factor = written as f64 / (8.0 * 1_200.0 * 45_000.0);
        assert!(factor <= 4.0, "{factor}");
    }

    #[test]
    fn deep_overlap_goes_first_and_takes_the_smallest() {
        let limits = CompactionLimits::default();
        let mut segments: Vec<_> = (0..8).map(|n| segment(n, (n, 100), MIB << n)).collect();
        assert_eq!(plan(&segments, &limits), None, "eight are not too many");
        segments.push(segment(8, (50, 60), 2000 * MIB));
        let found = plan(&segments, &limits).unwrap();
        assert_eq!(found.reason, Reason::Overlap);
        assert_eq!(found.inputs, (0..8).map(SegmentId).collect::<Vec<_>>());
    }

    #[test]
    fn nothing_is_merged_beyond_the_longest_span_or_the_room() {
        let limits = CompactionLimits { span_ms_max: 100, ..CompactionLimits::default() };
        let segments: Vec<_> = (0..40).map(|n| segment(n, (n * 20, n * 20 + 10), MIB)).collect();
        let found = plan(&segments, &limits).unwrap();
        assert_eq!(found.inputs, (0..5).map(SegmentId).collect::<Vec<_>>(), "0 to 90 ms");
        let tight = CompactionLimits { room_bytes: 5 * MIB - 1, ..limits };
        assert_eq!(plan(&segments, &tight), None);
        let wide: Vec<_> = (0..40).map(|n| segment(n, (n, n + 101), MIB)).collect();
        assert_eq!(plan(&wide, &limits), None, "each alone spans too much");
        let mut mixed = wide;
        mixed.extend((40..48).map(|n| segment(n, (30, 40), MIB)));
        let found = plan(&mixed, &limits).unwrap();
        assert_eq!(found.inputs, (40..48).map(SegmentId).collect::<Vec<_>>());
    }

    #[test]
    fn a_plan_that_finds_no_room_holds_back_no_smaller_one() {
        let limits = CompactionLimits { small_group_max: 16, ..CompactionLimits::default() };
        // Sixteen of 100 MiB; sixteen of 1 MiB behind them; too many of 3 MiB over one point.
        let mut segments: Vec<_> =
            (0..16).map(|n| segment(n, (n * 10, n * 10 + 5), 100 * MIB)).collect();
        segments.extend((16..32).map(|n| segment(n, (n * 10, n * 10 + 5), MIB)));
        let large = |limits: &CompactionLimits| plan(&segments[..16], limits);
        assert_eq!(large(&limits).unwrap().inputs.len(), 16);
        let tight = CompactionLimits { room_bytes: 20 * MIB, ..limits };
        assert_eq!(large(&tight), None);
        let found = plan(&segments, &tight).unwrap();
        assert_eq!(found.inputs, (16..32).map(SegmentId).collect::<Vec<_>>());
        assert_eq!(room_wanted_bytes(&segments, &tight), None, "there is something to do");
        assert_eq!(room_wanted_bytes(&segments[..16], &tight), Some(1600 * MIB));
        assert_eq!(room_wanted_bytes(&segments[..3], &tight), None);

        segments.extend((32..48).map(|n| segment(n, (500, 600), 3 * MIB)));
        let found = plan(&segments, &tight).unwrap();
        assert_eq!((found.reason, found.inputs.len()), (Reason::Overlap, 6), "18 of 48 MiB");
        let none = CompactionLimits { room_bytes: 0, ..limits };
        assert_eq!(plan(&segments, &none), None);
    }

    #[test]
    fn a_trickle_over_a_whole_retention_stays_few_segments_of_bounded_span() {
        const HOUR_MS: u64 = 3_600_000;
        let limits = CompactionLimits { span_ms_max: HOUR_MS, ..CompactionLimits::default() };
        let (mut segments, mut id) = (Vec::new(), 1 << 32);
        for n in 0..8 * 1_200 {
            segments.push(segment(n, (n * 3_000, n * 3_000 + 4_000), 45_000));
            while let Some(plan) = plan(&segments, &limits) {
                apply(&mut segments, &plan, id);
                id += 1;
            }
        }
        assert!(segments.len() <= 120, "{}", segments.len());
        assert!(segments.iter().all(|s| span_ms(s.first, s.last) <= HOUR_MS));
    }

    #[test]
    fn neighbours_of_other_sizes_are_left_alone() {
        let limits = CompactionLimits { small_group_max: 16, ..CompactionLimits::default() };
        // Fifteen small ones on each side of a large one, and a full one at the end.
        let mut segments: Vec<_> = (0..30).map(|n| segment(n, (n * 10, n * 10 + 5), MIB)).collect();
        segments.push(segment(30, (147, 148), 300 * MIB));
        segments.push(segment(31, (500, 600), 1500 * MIB));
        assert_eq!(plan(&segments, &limits), None);
        segments.push(segment(32, (400, 401), MIB));
        let plan = plan(&segments, &limits).unwrap();
        assert_eq!(plan.reason, Reason::Tier);
        let expected: Vec<_> = (15..30).chain([32]).map(SegmentId).collect();
        assert_eq!(plan.inputs, expected);
    }

    #[test]
    fn a_few_large_segments_are_not_written_again_to_become_one() {
        let limits = CompactionLimits::default();
        let of = |count: u64, bytes: u64| {
            (0..count).map(|n| segment(n, (n * 10, n * 10 + 5), bytes)).collect::<Vec<_>>()
        };
        assert_eq!(plan(&of(20, 410 * MIB), &limits), None, "four of them fit into the largest");
        assert_eq!(plan(&of(7, 300 * MIB), &limits).unwrap().inputs.len(), 6);
    }

    #[test]
    fn small_segments_wait_for_more_of_them() {
        let limits = CompactionLimits::default();
        let mut segments: Vec<_> = (0..47).map(|n| segment(n, (n * 10, n * 10 + 5), MIB)).collect();
        assert_eq!(plan(&segments, &limits), None);
        segments.push(segment(47, (470, 475), MIB));
        assert_eq!(plan(&segments, &limits).unwrap().inputs.len(), 48);
    }

    #[test]
    fn smaller_ones_behind_a_group_do_not_close_it_however_many() {
        let limits = CompactionLimits::default();
        let mut segments: Vec<_> =
            (0..6).map(|n| segment(n, (n * 10, n * 10 + 5), 200 * MIB)).collect();
        segments.extend((6..21).map(|n| segment(n, (n * 10, n * 10 + 5), 20 * MIB)));
        segments.extend((21..68).map(|n| segment(n, (n * 10, n * 10 + 5), MIB)));
        assert_eq!(plan(&segments, &limits), None, "there is room for more of the first six");
        // One that is too far away closes it.
        segments.push(segment(68, (680, 685), 200 * MIB));
        let found = plan(&segments, &limits).unwrap();
        assert_eq!(found.inputs, (0..6).map(SegmentId).collect::<Vec<_>>());
    }

    proptest! {
        #[test]
        fn planning_ends_and_stays_in_bounds(
            parts in proptest::collection::vec((0..1000u64, 0..200u64, 1..2_000_000_000u64), 0..60),
        ) {
            let limits = CompactionLimits::default();
            let mut segments: Vec<_> = parts
                .iter()
                .zip(0..)
                .map(|(&(at, len, bytes), id)| segment(id, (at, at + len), bytes))
                .collect();
            let mut id = 1000;
            while let Some(plan) = plan(&segments, &limits) {
                prop_assert!(plan.inputs.len() <= limits.inputs_max);
                prop_assert!(apply(&mut segments, &plan, id) <= limits.segment_bytes_max);
                id += 1;
            }
            prop_assert!(id <= 1060);
        }
    }
}
