//! Two nodes in one process: what one of them does is nothing to the other.

use engine::ingest::log::Now;
use engine::ingest::topics::TopicChoice;
use engine::storage::sim::{Random, SimStorage};

use crate::model::{Model, lines};
use crate::node::Node;
use crate::seeds::for_seeds;
use crate::settings::{Settings, empty_disk};

const STEPS: usize = 150;

/// A node that works.
struct Life {
    sim: SimStorage,
    node: Node,
    model: Model,
    random: Random,
    /// After each step, of the disk's calls and of what was told, how many.
    trace: Vec<(u64, usize)>,
}

impl Life {
    fn start(seed: u64) -> Self {
        let sim = empty_disk(seed);
        let now = Now { monotonic_us: 0, wall_ms: 1_700_000_000_000 };
        let node = Node::start(&sim, Settings::small(seed), now).expect("recovery succeeds");
        let (model, random) = (Model::default(), Random::new(seed));
        Self { sim, node, model, random, trace: Vec::new() }
    }

    fn step(&mut self) {
        let Self { node, model, random, .. } = self;
        match random.below(10) {
            0..4 if node.can_accept(0) => {
                node.append(model, 0, &lines(random), &TopicChoice::FirstWord, random.chance(0.5));
            }
            0..6 => node.advance_us(random.below(50_000)),
            6..9 => (0..20).for_each(|_| node.step(model, random)),
            _ => {
                node.gather();
                node.compact();
                // What is open between queries is part of what a node does to its disk.
                node.catalogue.directory().caches.set_segments_open_max(random.below(4) as usize);
                model.check_all(&node.found());
            }
        }
        self.trace.push((self.sim.calls(), self.node.errors.borrow().len()));
    }
}

fn simulate(seed: u64) -> u64 {
    let mut alone = Life::start(2 * seed);
    (0..STEPS).for_each(|_| alone.step());
    assert!(alone.node.catalogue.totals().segment_count > 0, "there is something in the store");
    let [mut this, mut other] = [Life::start(2 * seed), Life::start(2 * seed + 1)];
    for _ in 0..STEPS {
        other.step();
        this.step();
    }
    assert!(this.trace == alone.trace, "as if it were alone, call by call");
    assert_eq!(this.node.found().records, alone.node.found().records);
    assert_eq!(this.sim.files(), alone.sim.files());
    assert_eq!(this.node.trace.digest(), alone.node.trace.digest(), "what was told and answered");
    other.node.trace.digest()
}

#[test]
fn two_nodes_in_one_process_do_not_disturb_each_other() {
    for_seeds("two nodes side by side", 20, simulate);
}
