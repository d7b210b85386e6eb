//! Search that is stepped: the pool's decisions without a thread, and with time as it is said.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::consumer::{Output, Telling};
use super::hanging_tests::{in_file, part};
use super::pipe::pipe;
use super::places::Place;
use super::pool::{Call, Hand, Outside, Pool};
use super::sweep::{Sweep, SweepOptions};
use super::testing::{Decoded, TestPart};
use super::tests::{searcher, series, spec};
use super::*;
use crate::chunk::Part;
use crate::disk_health::HANG_MS;
use crate::limits::QUERY_HITS_MAX;
use crate::random::Random;

/// What there is to read now; `true`: that was all.
fn read_some(reader: &mut PipeReader, into: &mut Vec<u8>, pieces_max: usize) -> bool {
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..pieces_max {
        match reader.poll_next(&mut context) {
            Poll::Ready(Some(piece)) => into.extend_from_slice(&piece),
            Poll::Ready(None) => return true,
            Poll::Pending => return false,
        }
    }
    false
}

/// Parts of which some lie over others, with copies.
fn overlapping() -> Vec<Arc<dyn Part>> {
    let text = |i: u64| format!("record {i} {:0200}", i * i).into_bytes();
    let part = |first, count, chunk| {
        Arc::new(TestPart::new(&series(first, count, text), chunk)) as Arc<dyn Part>
    };
    vec![part(0, 4_000, 70), part(1_000, 900, 11), part(1_500, 3_000, 400), part(9_000, 10, 3)]
}

fn specs() -> Vec<QuerySpec> {
    let regex = Chain::from(Expression::new("record [0-9]*7 ", true, false).unwrap());
    vec![
        spec(""),
        QuerySpec { order: Order::Desc, ..spec("") },
        QuerySpec { chain: regex.clone(), ..spec("") },
        QuerySpec { chain: regex, order: Order::Desc, limit: Some(77), ..spec("") },
        spec("not there"),
    ]
}

fn snapshot(parts: &[Arc<dyn Part>]) -> Snapshot {
    Snapshot { parts: parts.to_vec(), missing: Vec::new() }
}

/// All queries at once, with readers that a seed drives: what each step came to, what each query said.
fn story(seed: u64) -> (Vec<Step>, Vec<(Vec<u8>, Stats)>) {
    let mut random = Random::new(seed);
    let mut search = Stepped::new("here", Arc::default());
    let parts = overlapping();
    let ask = |spec| search.searcher().query(spec, snapshot(&parts), Format::Text);
    let mut readers: Vec<_> =
        specs().into_iter().map(|spec| (ask(spec), Vec::new(), false)).collect();
    let (mut steps, mut now) = (Vec::new(), Duration::ZERO);
    while readers.iter().any(|(.., is_over)| !is_over) {
        now += Duration::from_micros(random.below(500));
        steps.push(search.step(now));
        let at = random.below(readers.len() as u64) as usize;
        let (reader, read, is_over) = &mut readers[at];
        *is_over |= read_some(reader, read, random.below(3) as usize);
        assert!(steps.len() < 1_000_000, "queries come to their end");
    }
    let answer = |(reader, read, _): (PipeReader, Vec<u8>, bool)| {
        let outcome = reader.outcome().unwrap();
        assert!(!outcome.aborted);
        (read, outcome.stats)
    };
    (steps, readers.into_iter().map(answer).collect())
}

#[test]
fn the_same_calls_give_the_same_steps_and_the_answers_that_threads_give() {
    let threaded = searcher(2);
    let parts = overlapping();
    let ask = |spec| threaded.query(spec, snapshot(&parts), Format::Text).read_all_blocking().0;
    let expected: Vec<Vec<u8>> = specs().into_iter().map(ask).collect();
    for seed in 0..5 {
        let (steps, answers) = story(seed);
        assert!(steps.contains(&Step::Worked));
        for ((read, stats), expected) in answers.iter().zip(&expected) {
            assert!(read == expected, "seed {seed}");
            assert!(stats.complete && stats.duration > Duration::ZERO);
        }
        assert!((steps, answers) == story(seed), "seed {seed} twice");
    }
}

#[test]
fn a_reader_that_stalls_gives_back_what_it_keeps_when_its_time_has_passed() {
    let decoded = Arc::new(Decoded::default());
    let text = |i: u64| format!("record {i} {i:01000}").into_bytes();
    let one = TestPart::new(&series(0, 1_000, text), 64);
    let parts =
        [Arc::new(TestPart { decoded: Some(Arc::clone(&decoded)), ..one }) as Arc<dyn Part>];
    let mut search = Stepped::within("here", Arc::default(), 1 << 20);
    let ask = |search: &Stepped| search.searcher().query(spec(""), snapshot(&parts), Format::Text);
    let mut stalled: Vec<_> = (0..200).map(|_| ask(&search)).collect();
    let mut now = Duration::ZERO;
    let idle = |search: &mut Stepped, now| loop {
        if let Step::Idle(pause) = search.step(now) {
            return pause;
        }
    };
    let pause = idle(&mut search, now).expect("too much is kept: it wants to be stepped again");
    let before = decoded.bytes();
    assert!(before > 1 << 20);
    assert_eq!(idle(&mut search, now), Some(pause), "no time has passed");
    assert_eq!(decoded.bytes(), before);
    while let Some(pause) = idle(&mut search, now) {
        now += pause;
        assert!(now < Duration::from_secs(3600));
    }
    assert!(decoded.bytes() <= 1 << 20, "{}", decoded.bytes());
    let mut read = Vec::new();
    while !read_some(&mut stalled[0], &mut read, 1) {
        if let Step::Idle(Some(pause)) = search.step(now) {
            now += pause;
        }
    }
    assert_eq!(stalled[0].outcome().unwrap().stats.records, 1_000);
    assert_eq!(read.len(), (0..1_000).map(|i| 27 + text(i).len() + 1).sum::<usize>());
}

/// Clock of a pool that is turned by several hands.
#[derive(Default)]
struct Told {
    calls: AtomicU64,
}

impl Outside for Told {
    fn now(&self) -> Duration {
        Duration::ZERO
    }

    fn worked(&self) -> Duration {
        Duration::ZERO
    }

    fn wake_one(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    fn wake_all(&self) {
        self.wake_one();
    }
}

fn submit(pool: &Arc<Pool>, parts: &[Arc<dyn Part>]) -> PipeReader {
    let id = pool.next_id();
    let own = Arc::clone(pool);
    let (writer, reader) = pipe(Arc::new(move || own.wake(id)));
    let options = SweepOptions {
        window: 6,
        node: "here".into(),
        hits_max: QUERY_HITS_MAX,
        counts_only: false,
        telling: Telling::Nothing,
        only: None,
    };
    let output = Output::new(writer, Format::Text, Order::Asc);
    pool.submit(id, Sweep::new(spec(""), snapshot(parts), options), Box::new(output));
    reader
}

/// Works until there is nothing to do.
fn work_off(pool: &Pool, hand: &mut Hand) -> Call {
    loop {
        match pool.turn(hand) {
            Call::Work => hand.work(),
            call => return call,
        }
    }
}

#[test]
fn a_hand_that_hangs_in_a_file_costs_the_file_and_another_one_takes_its_place() {
    let outside = Arc::new(Told::default());
    let pool = Arc::new(Pool::new(2, Arc::clone(&outside) as Arc<dyn Outside>, 1 << 20));
    let place = |index| Place { index, pulse: Arc::default() };
    let [mut stuck, mut other] = [pool.hand(place(0)), pool.hand(place(1))];
    // Its chunks are read where they are asked for: it hangs as long as its hand does not work.
    let parts: [Arc<dyn Part>; 2] =
        [Arc::new(in_file(0, 100, Some(usize::MAX))), Arc::new(part(200, 100))];
    let mut reader = submit(&pool, &parts);
    assert_eq!(outside.calls.load(Ordering::Relaxed), 1);
    assert_eq!(pool.turn(&mut stuck), Call::Work);
    assert_eq!(
        work_off(&pool, &mut other),
        Call::Rest(None),
        "all that is left waits for the file"
    );
    let mut read = Vec::new();
    assert!(!read_some(&mut reader, &mut read, 9) && read.is_empty());

    let stands = |id| Some(Standing { is_waiting: id == stuck.id(), waits: 7 });
    let at = Duration::from_millis;
    assert_eq!(pool.look(at(0), &stands), []);
    assert_eq!(pool.look(at(HANG_MS - 1), &stands), []);
    let given_up = pool.look(at(HANG_MS), &stands);
    assert_eq!(given_up.len(), 1);
    assert_eq!(given_up[0].path.as_deref(), parts[0].file_path().as_deref());

    let [vacancy] = <[_; 1]>::try_from(pool.vacancies()).unwrap();
    assert_eq!(vacancy.place.index, stuck.index());
    assert!(pool.vacancies().is_empty(), "each is told once");
    let mut instead = pool.hand(vacancy.place);
    assert_eq!(work_off(&pool, &mut instead), Call::Rest(None));
    assert!(read_some(&mut reader, &mut read, 9));
    let stats = reader.outcome().unwrap().stats;
    assert_eq!((stats.records, stats.complete), (100, false));
    assert_eq!((stats.missing[0].from, stats.missing[0].to), parts[0].range());

    // Until it answers nobody turns to it.
    let mut reader = submit(&pool, &parts);
    work_off(&pool, &mut other);
    assert!(read_some(&mut reader, &mut read, 9));
    assert_eq!(reader.outcome().unwrap().stats.records, 100);
    stuck.work();
    assert_eq!(pool.turn(&mut stuck), Call::Go, "another one has its place");
    let mut reader = submit(&pool, &parts);
    work_off(&pool, &mut other);
    assert!(read_some(&mut reader, &mut read, 9));
    assert_eq!(reader.outcome().unwrap().stats.records, 200);
}

#[test]
fn the_end_of_a_pool_ends_its_queries_and_sends_its_hands_away() {
    let pool = Arc::new(Pool::new(1, Arc::<Told>::default(), 1 << 20));
    let mut hand = pool.hand(Place { index: 0, pulse: Arc::default() });
    let parts: [Arc<dyn Part>; 1] = [Arc::new(part(0, 100))];
    let (mut reader, mut read) = (submit(&pool, &parts), Vec::new());
    assert_eq!(pool.turn(&mut hand), Call::Work);
    pool.stop();
    assert!(read_some(&mut reader, &mut read, 9));
    assert!(reader.outcome().unwrap().aborted);
    assert_eq!(work_off(&pool, &mut hand), Call::Go);
    let mut late = submit(&pool, &parts);
    assert!(read_some(&mut late, &mut read, 9) && late.outcome().unwrap().aborted);
    assert_eq!(pool.live_count(), 0);
}
