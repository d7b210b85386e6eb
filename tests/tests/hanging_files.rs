//! A file system that hangs in one file keeps queries over others from nothing, on the real binary.

use tests::faulty_disk::{Call, Effect, FaultyDisk, Rule};
use tests::node::Node;
use tests::{http, sender, skipped, wait_until};

fn lines(word: &str) -> Vec<u8> {
    (0..100).flat_map(|i| format!("{word} {i}\n").into_bytes()).collect()
}

fn store_files(disk: &FaultyDisk) -> Vec<String> {
    let entries = std::fs::read_dir(disk.beneath().join("data/store")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".flushed")).collect()
}

#[test]
fn a_file_that_hangs_costs_answers_its_own_records_and_nobody_waits_for_it_for_ever() {
    let test = "a_file_that_hangs_costs_answers_its_own_records_and_nobody_waits_for_it_for_ever";
    let disk = match FaultyDisk::new() {
        Ok(disk) => disk,
        Err(why) => return skipped(test, &why),
    };
    let node = Node::start(disk.path(), &[]);
    sender::send(node.durable, &lines("first"));
    node.settle();
    let first = node.query("");
    let [file] = &store_files(&disk)[..] else { panic!("one segment") };
    sender::send(node.durable, &lines("second"));
    node.settle();
    disk.add(Rule::new(&[Call::Open], &format!("data/store/{file}"), Effect::Hang));
    // More than there are threads to wait for it.
    let queries = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) + 2;
    let api = node.api;
    std::thread::scope(|scope| {
        let ask = || http::get(api, "/query?from=24h");
        let asking: Vec<_> = (0..queries).map(|_| scope.spawn(ask)).collect();
        for answer in asking {
            let answer = answer.join().unwrap();
            assert_eq!((answer.status, answer.complete), (200, true));
            assert_eq!(answer.headers["x-oklog-complete"], "false");
            assert_eq!(tests::lines::records(&answer.body).len(), 100, "those of the other file");
        }
    });
    wait_until("it is told", || node.log().contains("a file does not answer"));
    assert!(node.log().contains(file), "{}", node.log());
    let stats = node.get("/query?from=24h&stats").json();
    assert_eq!((&stats["complete"], &stats["records"]), (&false.into(), &100.into()));
    assert!(stats["missing"].to_string().contains(file), "{stats}");
    let (last, _) = first.last().unwrap();
    assert_eq!(node.query(&format!("after={last}")).len(), 100, "and that is all of them");
    disk.heal();
    wait_until("nothing is missing", || {
        node.get("/query?from=24h&stats").json()["complete"] == true
    });
    assert_eq!(node.query("").len(), 200);
    assert!(node.stop().success());
}
