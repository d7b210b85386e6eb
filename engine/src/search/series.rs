//! Matching records over time, by topic: the largest topics, and the rest.
//!
//! Counts of every topic in every span would be too many where there are many of both. So they are kept
//! as long as they are few ([`SERIES_CELLS_MAX`]); beyond that only the sum of each topic is, and the
//! largest are counted again by themselves, of the same records.
//!
//! Invariants: what is shown as largest is largest; the series of a span add up to all of it, unless
//! records became unreadable between the two counts, and then what is missing is told.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::consumer::{Histogram, Tally};
use super::scan::Hit;
use super::spec::Stats;
use crate::chunk::ChunkMeta;
use crate::limits::{SERIES_CELLS_MAX, SERIES_ROW_CELLS, SERIES_TOPICS_MAX};
use crate::topic::Topic;

/// What records of one topic, or of the rest, there are in each bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Series {
    /// `None`: every topic that is not among the largest.
    pub topic: Option<Topic>,
    /// As many as in the histogram of all.
    pub counts: Vec<u64>,
}

/// A histogram of all, and one of each of the largest topics and the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicHistogram {
    /// Of all.
    pub all: Histogram,
    /// The largest first, at most [`SERIES_TOPICS_MAX`]; the rest last, where there is one.
    pub series: Vec<Series>,
}

/// What one pass over the records finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SeriesFound {
    /// Everything.
    Whole(TopicHistogram),
    /// There is too much: these topics are to be counted again by themselves.
    Largest(Histogram, Vec<Topic>),
}

impl SeriesFound {
    /// Which topics are to be counted again: of the same records, within the same bounds.
    pub fn to_count_again(&self) -> Option<&[Topic]> {
        match self {
            Self::Whole(_) => None,
            Self::Largest(_, topics) => Some(topics),
        }
    }

    /// All of it, with what was found when that was counted.
    pub fn with(self, again: Option<Self>) -> TopicHistogram {
        match (self, again) {
            (Self::Whole(found), _) => found,
            (Self::Largest(mut all, _), Some(Self::Whole(again))) => {
                all.stats.add_cost(&again.all.stats);
                let series = with_rest(&all.counts, again.series);
                TopicHistogram { all, series }
            }
            (Self::Largest(all, _), _) => TopicHistogram { all, series: Vec::new() },
        }
    }
}

/// A topic's records, in all and in each bucket; the latter is empty where nobody counts that.
#[derive(Debug, Default)]
struct Row {
    records: u64,
    counts: Vec<u64>,
}

/// Counts them.
pub(super) struct SeriesTally {
    all: Histogram,
    rows: BTreeMap<Topic, Row>,
    cells: usize,
}

impl SeriesTally {
    pub(super) const fn new(all: Histogram) -> Self {
        Self { all, rows: BTreeMap::new(), cells: 0 }
    }

    const fn is_too_much(&self) -> bool {
        self.cells > SERIES_CELLS_MAX
    }

    fn add(&mut self, topic: &Topic, ms: u64, records: u64) {
        let bucket = self.all.bucket(ms);
        if !self.rows.contains_key(topic) {
            let was_too_much = self.is_too_much();
            self.cells = self.cells.saturating_add(self.all.counts.len() + SERIES_ROW_CELLS);
            let counts =
                if self.is_too_much() { Vec::new() } else { vec![0; self.all.counts.len()] };
            if self.is_too_much() && !was_too_much {
                self.rows.values_mut().for_each(|row| row.counts = Vec::new());
            }
            self.rows.insert(topic.clone(), Row { records: 0, counts });
        }
        if let Some(row) = self.rows.get_mut(topic) {
            row.records += records;
            if let Some(count) = row.counts.get_mut(bucket) {
                *count += records;
            }
        }
    }
}

impl Tally for SeriesTally {
    type Result = SeriesFound;

    fn count(&mut self, topic: &Topic, hit: &Hit) {
        self.all.count(topic, hit);
        self.add(topic, hit.first.ms(), u64::from(hit.count));
    }

    fn count_chunk(&mut self, topic: Option<&Topic>, chunk: &ChunkMeta) -> bool {
        let Some(topic) = topic else { return false };
        if !self.all.count_chunk(Some(topic), chunk) {
            return false;
        }
        self.add(topic, chunk.first.ms(), u64::from(chunk.record_count));
        true
    }

    fn result(self, stats: Stats) -> SeriesFound {
        let is_too_much = self.is_too_much();
        let all = self.all.result(stats);
        let mut rows: Vec<(Topic, Row)> = self.rows.into_iter().collect();
        rows.sort_by_key(|(_, row)| Reverse(row.records));
        rows.truncate(SERIES_TOPICS_MAX);
        if is_too_much {
            return SeriesFound::Largest(all, rows.into_iter().map(|(topic, _)| topic).collect());
        }
        let series = rows.into_iter();
        let series = series.map(|(topic, row)| Series { topic: Some(topic), counts: row.counts });
        let series = with_rest(&all.counts, series.collect());
        SeriesFound::Whole(TopicHistogram { all, series })
    }
}

/// These and what they leave of all.
fn with_rest(all: &[u64], mut series: Vec<Series>) -> Vec<Series> {
    let mut rest = all.to_vec();
    for one in &series {
        rest.iter_mut()
            .zip(&one.counts)
            .for_each(|(rest, count)| *rest = rest.saturating_sub(*count));
    }
    if rest.iter().any(|&count| count > 0) {
        series.push(Series { topic: None, counts: rest });
    }
    series
}
