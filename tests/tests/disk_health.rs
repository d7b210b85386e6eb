//! A node tells what its disk does: `/ready` and `POST /records` follow every kind of call that
//! fails or hangs, and forget a fault that is over.

use std::time::{Duration, Instant};

use tests::faulty_disk::{Call, Effect, Errno, FaultyDisk, Rule};
use tests::node::Node;
use tests::{http, skipped, wait_until};

/// Within which a fault is told, and forgotten when it is over.
const PROMISED: Duration = Duration::from_secs(10);

/// Waits for the condition; it must hold within the promised time.
fn within_promised(what: &str, condition: impl FnMut() -> bool) {
    let start = Instant::now();
    wait_until(what, condition);
    assert!(start.elapsed() <= PROMISED, "{what}: only after {:?}", start.elapsed());
}

fn post(node: &Node) -> http::Answer {
    http::post(node.api, "/records?mode=durable", b"a record\n")
}

/// What is done to a disk, and what the reason must name.
struct Fault<'a> {
    name: &'a str,
    begin: &'a (dyn Fn(&FaultyDisk) + Sync),
    names: &'a [&'a str],
    /// Whether what was taken can be found meanwhile.
    is_readable: bool,
}

/// A node on a disk of its own meets a fault that healing the disk ends.
fn follow(Fault { name: fault, begin, names, is_readable }: &Fault<'_>) {
    let disk = FaultyDisk::new().unwrap();
    let node = Node::start(disk.path(), &["--ingest.segment-flush-age", "500ms"]);
    assert_eq!(post(&node).status, 200);
    // At rest: a rename that waits behind a call that hangs would hide what is in that file.
    node.settle();
    begin(&disk);
    let mut told = String::new();
    within_promised(&format!("/ready tells of {fault}"), || {
        let ready = node.get("/ready");
        told = ready.text();
        ready.status == 503 && told.contains("the disk of --ingest.path fails since 20")
    });
    assert!(names.iter().all(|name| told.contains(name)), "{fault}: {told}");
    let metrics = node.get("/metrics").text();
    assert!(metrics.contains("oklog_disk_failing{directory=\"ingest\"} 1"), "{fault}: {metrics}");
    assert_eq!(node.get("/health").status, 200, "{fault}: the process turns");
    let start = Instant::now();
    let refused = post(&node);
    assert!(start.elapsed() < Duration::from_secs(2), "{fault}: {:?}", start.elapsed());
    assert_eq!(refused.status, 503, "{fault}: {}", refused.text());
    assert!(refused.text().contains("the disk of --ingest.path fails"), "{}", refused.text());
    if *is_readable {
        assert_eq!(node.query("q=a+record").len(), 1, "{fault}: what is readable is found");
    }
    disk.heal();
    within_promised(&format!("{fault} is forgotten"), || node.get("/ready").status == 200);
    assert_eq!(post(&node).status, 200, "{fault}: {}", node.log());
    assert!(node.query("q=a+record").len() >= 2, "{fault}: {}", node.log());
    let log = node.log();
    assert!(log.matches("the disk fails").count() <= 8, "told per change of state: {log}");
    assert!(node.stop().success());
}

#[test]
fn ready_follows_every_kind_of_call_that_fails_or_hangs_and_forgets_what_is_over() {
    let test = "ready_follows_every_kind_of_call_that_fails_or_hangs_and_forgets_what_is_over";
    if let Err(why) = FaultyDisk::new() {
        return skipped(test, &why);
    }
    let kinds = [
        (Call::Create, "create "),
        (Call::Write, "write "),
        (Call::Sync, "sync "),
        (Call::Rename, "rename "),
        (Call::Open, "open"),
    ];
    std::thread::scope(|scope| {
        for (call, name) in kinds {
            for effect in [Effect::Fail(Errno::IO), Effect::Hang] {
                let said = if effect == Effect::Hang { "does not answer" } else { "os error 5" };
                scope.spawn(move || {
                    let begin = |disk: &FaultyDisk| {
                        disk.add(Rule::new(&[call], "*", effect));
                    };
                    // A directory is opened to be synced and listed: either may be named.
                    let names = if call == Call::Open { [said, "data/"] } else { [said, name] };
                    follow(&Fault {
                        name: &format!("{effect:?} of {call:?}"),
                        begin: &begin,
                        names: &names,
                        // A rename that hangs holds its directory in the kernel.
                        is_readable: !matches!(
                            (call, effect),
                            (Call::Open, _) | (Call::Rename, Effect::Hang)
                        ),
                    });
                });
            }
        }
        scope.spawn(|| {
            follow(&Fault {
                name: "a read-only disk",
                begin: &|disk| disk.set_read_only(true),
                names: &["os error 30"],
                is_readable: true,
            });
        });
    });
}
