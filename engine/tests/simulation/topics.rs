//! What a node has to know of topics after a stop of any kind: those of all records that it holds on its
//! ingest side, and those of which records were safe, wherever they are now.

use std::collections::BTreeSet;

use engine::chunk::Part;
use engine::ingest::known_topics::KnownTopics;
use engine::ingest::segment::Segment;
use engine::topic::INVALID_TOPIC;
use engine::ulid::Ulid;

use crate::model::{Death, Model};
use crate::node::Node;

/// What the next life has to know.
#[derive(Default)]
pub(crate) struct Topics {
    known: BTreeSet<String>,
    /// Records of this life are above it.
    floor: Option<Ulid>,
    /// The disk refused their names until the end.
    is_refused: bool,
}

impl Topics {
    /// A node works from now on, and knows what it knows.
    pub(crate) fn started(&mut self, node: &Node, model: &Model) {
        self.known = known_topics(node);
        self.floor = model.floor;
    }

    /// It is gone.
    pub(crate) fn died(&mut self, node: &Node) {
        self.is_refused = node.has_unkept_topics.get();
    }

    /// The next one knows the topics of all that was safe.
    pub(crate) fn check(&mut self, node: &Node, model: &Model, death: Death) {
        let safe = match death {
            Death::Kill => &model.written,
            Death::PowerLoss => &model.durable,
        };
        let of_life = safe.iter().filter(|ulid| !self.is_refused && Some(**ulid) > self.floor);
        let topics = of_life.filter_map(|ulid| model.sent.get(ulid)).map(|r| r.topic.clone());
        self.known.extend(topics.filter(|topic| topic != INVALID_TOPIC));
        let known = known_topics(node);
        self.known.extend(held_topics(node));
        let forgotten: Vec<_> = self.known.difference(&known).collect();
        assert!(forgotten.is_empty(), "{forgotten:?} are not known any more, only {known:?}");
    }
}

/// Topics that it knows, with records or without.
fn known_topics(node: &Node) -> BTreeSet<String> {
    let known = node.sides.ingest.as_ref().map(|side| side.topics.known());
    known.iter().flat_map(KnownTopics::names).map(ToString::to_string).collect()
}

/// Topics of what is whole on the ingest side.
fn held_topics(node: &Node) -> BTreeSet<String> {
    let open = |segment: &std::sync::Arc<Segment>| segment.open().ok();
    let open: Vec<_> = node.registry.snapshot().iter().filter_map(open).collect();
    let chunks = open.iter().flat_map(|open| (0..open.chunks().len()).map(move |at| (open, at)));
    let tables = chunks.filter_map(|(open, at)| open.read_table(at).ok());
    let topics = tables.flat_map(|table| table.topics).map(|topic| topic.as_str().to_owned());
    topics.filter(|topic| topic != INVALID_TOPIC).collect()
}
