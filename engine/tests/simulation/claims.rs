//! A gatherer that is slow: what it claimed is stored once, however long it takes.

use engine::ingest::log::Now;
use engine::ingest::topics::TopicChoice;
use engine::storage::sim::Random;
use engine::topic::Topic;

use crate::model::Model;
use crate::node::Node;
use crate::settings::{Settings, empty_disk};

/// A node with flushed segments of many chunks, and what is in them.
fn node_with_a_backlog() -> (Node, Model) {
    let (mut random, mut model) = (Random::new(1), Model::default());
    let now = Now { monotonic_us: 0, wall_ms: 1_700_000_000_000 };
    let mut node = Node::start(&empty_disk(1), Settings::small(1), now).unwrap();
    let choice = TopicChoice::Static(Topic::new(b"default").unwrap());
    for batch in 0..60 {
        let lines: Vec<_> = (0..4).map(|n| format!("line {batch} {n}").into_bytes()).collect();
        node.append(&mut model, batch % 2, &lines, &choice, true);
        for _ in 0..50 {
            node.advance_us(1_000);
            node.step(&mut model, &mut random);
        }
    }
    (node, model)
}

#[test]
fn a_merge_that_gets_on_never_loses_its_claim() {
    let (mut node, model) = node_with_a_backlog();
    let waiting = node.registry.list().len();
    assert!(waiting > 3);
    // Ten times as long as a claim stands that is not renewed.
    let before_us = node.now.monotonic_us;
    assert_eq!(node.gather_slowly(10_000), (1, 0));
    assert!(node.now.monotonic_us - before_us > 600_000_000);
    assert!(node.registry.list().len() < waiting, "the backlog shrinks");
    assert_eq!(node.gather_slowly(10_000).0, 0, "and nothing is gathered again");
    model.check_all(&node.found());
}

#[test]
fn what_was_stored_after_its_claim_lapsed_is_stored_once() {
    let (mut node, model) = node_with_a_backlog();
    // Between two chunks as long as a claim stands, and more.
    let (published, lapses) = node.gather_slowly(61_000);
    assert!(published == 1 && lapses > 0, "{published} {lapses}");
    assert_eq!(node.gather_slowly(61_000).0, 0, "nothing is gathered again");
    assert_eq!(node.catalogue.snapshot().len(), 1);
    assert!(node.errors.borrow().is_empty(), "{:?}", node.errors);
    model.check_all(&node.found());
}
