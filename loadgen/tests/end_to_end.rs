//! The program against its own sink and against a stand-in for a node, over loopback.

mod support;

use std::fs;

use support::{Fault, Node, Sink, loadgen};

const RECORD_BYTES_MAX: usize = 1 << 20;

#[test]
fn what_was_sent_is_verified_by_query() {
    let node = Node::start(Fault::None, RECORD_BYTES_MAX);
    let (code, report) = loadgen(&[
        "send",
        "--to",
        &node.ingest,
        "--api",
        &node.api,
        "--templates",
        "web,java",
        "--bytes",
        "300kB",
        "--connections",
        "4",
        "--chunk",
        "1500",
        "--verify",
    ]);
    assert_eq!((code, &report["verified"]), (0, &true.into()), "{report}");
    assert_eq!(report["records"], node.records.lock().unwrap().len());
    assert_eq!(report["verify_records_found"], report["records"]);
    assert!(report["mb_per_s"].as_f64().unwrap() > 0.0);
}

#[test]
fn what_was_sent_until_time_was_up_is_verified_too() {
    let node = Node::start(Fault::None, RECORD_BYTES_MAX);
    let (code, report) = loadgen(&[
        "send",
        "--to",
        &node.ingest,
        "--api",
        &node.api,
        "--seconds",
        "300ms",
        "--rate",
        "2MB/s",
        "--connections",
        "3",
        "--chunk",
        "1000",
        "--templates",
        "java",
        "--verify",
    ]);
    assert_eq!((code, &report["verified"]), (0, &true.into()), "{report}");
    assert!((100_000..=700_000).contains(&report["bytes"].as_u64().unwrap()), "{report}");
}

#[test]
fn a_lost_a_doubled_and_an_altered_record_fail_the_run_and_are_shown() {
    for (fault, counts, word) in [
        (Fault::LoseOne, [1, 0, 0], "missing 1"),
        (Fault::DoubleOne, [0, 1, 0], "duplicated"),
        (Fault::AlterOne, [1, 0, 1], "missing 1"),
    ] {
        let node = Node::start(fault, RECORD_BYTES_MAX);
        let (code, report) = loadgen(&[
            "send",
            "--to",
            &node.ingest,
            "--api",
            &node.api,
            "--records",
            "1000",
            "--seed",
            "7",
            "--connections",
            "3",
            "--verify",
        ]);
        assert_eq!((code, &report["verified"]), (1, &false.into()), "{fault:?}: {report}");
        let found = ["verify_missing", "verify_duplicated", "verify_unknown"]
            .map(|name| report[name].as_u64().unwrap());
        assert_eq!(found, counts, "{fault:?}");
        assert!(report["verify_difference_1"].as_str().unwrap().contains(word), "{report}");
    }
}

#[test]
fn a_file_is_replayed_byte_for_byte_whatever_its_lines_are() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lines");
    let mut text = b"first\r\n\n\0\xff\xfe\n".to_vec();
    text.extend(vec![b'l'; 2500]);
    text.extend(b"\nlast line without newline");
    fs::write(&path, &text).unwrap();
    let path = path.to_str().unwrap();
    for mode in ["fast", "durable"] {
        let node = Node::start(Fault::None, 1000);
        let (code, report) = loadgen(&[
            "send",
            "--to",
            &node.ingest,
            "--api",
            &node.api,
            "--file",
            path,
            "--mode",
            mode,
            "--chunk",
            "7",
            "--max-record-size",
            "1000",
            "--verify",
        ]);
        assert_eq!((code, &report["verified"]), (0, &true.into()), "{mode}: {report}");
        let kept = node.records.lock().unwrap();
        let lens: Vec<usize> = kept.iter().map(Vec::len).collect();
        assert_eq!(lens, [6, 0, 3, 1000, 1000, 500, 25], "{mode}");
    }
}

#[test]
fn a_corpus_is_written_once_replayed_and_verified_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let (samples, corpus) = (dir.path().join("samples"), dir.path().join("corpus.log"));
    fs::create_dir(&samples).unwrap();
    fs::write(samples.join("a.log"), "job 12345 done\r\njob 9 id 00ff00ff00ff failed").unwrap();
    fs::write(samples.join("b.log"), "connection from 10.20.30.40:50321\n").unwrap();
    let (samples, corpus) = (samples.to_str().unwrap(), corpus.to_str().unwrap());
    let node = Node::start(Fault::None, RECORD_BYTES_MAX);
    let (code, report) = loadgen(&[
        "send",
        "--to",
        &node.ingest,
        "--corpus",
        corpus,
        "--vary",
        samples,
        "--records",
        "2000",
        "--connections",
        "2",
    ]);
    assert_eq!((code, &report["records"]), (0, &2000.into()), "{report}");
    let text = fs::read_to_string(corpus).unwrap();
    assert!(text.lines().count() == 2000 && !text.contains('\r'));
    let (code, report) = loadgen(&["verify", "--api", &node.api, "--corpus", corpus]);
    assert_eq!((code, &report["verified"]), (0, &true.into()), "{report}");
    node.records.lock().unwrap().pop();
    let (code, report) = loadgen(&["verify", "--api", &node.api, "--corpus", corpus]);
    assert_eq!((code, &report["verify_missing"]), (1, &1.into()), "{report}");
}

#[test]
fn real_logs_are_varied_line_by_line() {
    let samples = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data/loghub");
    if !std::path::Path::new(samples).is_dir() {
        eprintln!("SKIPPED: {samples} is absent; varying real logs was not tested");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let out = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    let mut texts = Vec::new();
    for (name, seed) in [("a", "1"), ("b", "1"), ("c", "2")] {
        let (code, report) = loadgen(&[
            "corpus",
            "--out",
            &out(name),
            "--vary",
            samples,
            "--records",
            "20000",
            "--seed",
            seed,
        ]);
        assert_eq!((code, &report["records"]), (0, &20_000.into()), "{report}");
        let mean = report["bytes_per_record"].as_f64().unwrap();
        assert!((100.0..160.0).contains(&mean), "{mean} bytes per record");
        texts.push(fs::read(out(name)).unwrap());
    }
    assert_eq!(texts[0], texts[1]);
    assert_ne!(texts[0], texts[2]);
    let lines: std::collections::BTreeSet<_> = texts[0].split(|&byte| byte == b'\n').collect();
    assert!(lines.len() > 15_000, "only {} different lines", lines.len());
}

#[test]
fn durable_sending_measures_each_acknowledgement() {
    let sink = Sink::start();
    for window in ["1record", "3records", "10kB"] {
        let (code, report) = loadgen(&[
            "send",
            "--to",
            &sink.address,
            "--mode",
            "durable",
            "--records",
            "500",
            "--connections",
            "2",
            "--window",
            window,
            "--server-pid",
            &sink.pid(),
        ]);
        assert_eq!((code, &report["acknowledged_records"]), (0, &500.into()), "{report}");
        let latency = |name: &str| report[format!("ack_latency_{name}_us")].as_u64().unwrap();
        assert!(latency("p50") > 0 && latency("p50") <= latency("p99"), "{report}");
        assert!(latency("p99_9") <= latency("max"), "{report}");
        assert!(report["server_rss_anon_peak_mb"].as_f64().unwrap() > 0.0);
    }
}

#[test]
fn a_broken_connection_fails_the_run_but_acknowledged_records_are_still_verified() {
    let node = Node::start(Fault::CloseAfter(100), RECORD_BYTES_MAX);
    let (code, report) = loadgen(&[
        "send",
        "--to",
        &node.ingest,
        "--api",
        &node.api,
        "--mode",
        "durable",
        "--records",
        "5000",
        "--connections",
        "2",
        "--verify",
    ]);
    assert_eq!((code, &report["connections_failed"]), (1, &2.into()), "{report}");
    assert_eq!(report["verified"], true, "{report}");
    assert!(report["verify_records_sent_but_not_acknowledged"].as_u64().unwrap() > 0);
}

#[test]
fn rate_and_time_limits_hold() {
    let sink = Sink::start();
    let (code, report) = loadgen(&[
        "send",
        "--to",
        &sink.address,
        "--rate",
        "2000records/s",
        "--seconds",
        "500ms",
        "--connections",
        "8",
    ]);
    let records = report["records"].as_u64().unwrap();
    assert_eq!(code, 0, "{report}");
    assert!((500..=1016).contains(&records), "{records}");
    let (code, report) = loadgen(&[
        "trickle",
        "--to",
        &sink.address,
        "--rate",
        "100",
        "--seconds",
        "300ms",
        "--server-pid",
        &sink.pid(),
    ]);
    let records = report["records"].as_u64().unwrap();
    assert!(code == 0 && (10..=46).contains(&records), "{report}");
    assert!(report["device_write_kb_per_s"].is_number(), "{report}");
}

#[test]
fn sink_and_node_are_compared_in_turn() {
    let node = Sink::start();
    let (code, report) = loadgen(&[
        "compare-sink",
        "--to",
        &node.address,
        "--bytes",
        "4MB",
        "--connections",
        "4",
        "--server-pid",
        &node.pid(),
    ]);
    assert_eq!(code, 0, "{report}");
    assert!(report["node_over_sink"].as_f64().unwrap() > 0.0, "{report}");
    assert_eq!(report["sink_runs_mb_per_s"].as_str().unwrap().split(' ').count(), 2);
}

#[test]
fn many_connections_are_held_open() {
    let sink = Sink::start();
    let (code, report) = loadgen(&[
        "idle",
        "--to",
        &sink.address,
        "--connections",
        "300",
        "--hold-bytes",
        "20kB",
        "--seconds",
        "500ms",
        "--server-pid",
        &sink.pid(),
    ]);
    assert_eq!((code, &report["connections_open_at_end"]), (0, &300.into()), "{report}");
    assert_eq!(report["connections_that_sent_all"], 300, "{report}");
}

#[test]
fn a_query_is_timed_against_ripgrep() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let (raw, rg) = (dir.path().join("raw.log"), dir.path().join("rg"));
    fs::write(&raw, "a\nb\n").unwrap();
    fs::write(&rg, "#!/bin/sh\necho 2\n").unwrap();
    fs::set_permissions(&rg, fs::Permissions::from_mode(0o755)).unwrap();
    let node = Node::start(Fault::None, RECORD_BYTES_MAX);
    node.records.lock().unwrap().extend([b"a".to_vec(), b"b".to_vec()]);
    let (code, report) = loadgen(&[
        "query-bench",
        "--api",
        &node.api,
        "--raw",
        raw.to_str().unwrap(),
        "-q",
        "-x",
        "--rg",
        rg.to_str().unwrap(),
        "--runs",
        "3",
    ]);
    assert_eq!((code, &report["same_count"]), (0, &true.into()), "{report}");
    assert!(report["query_time_over_rg_time"].as_f64().unwrap() > 0.0);
}

#[test]
fn nonsense_is_a_usage_error() {
    for args in [
        &["send"][..],
        &["send", "--bytes", "much"],
        &["send", "--bytes", "1", "--records", "1"],
        &["send", "--records", "1", "--chunk", "0"],
        &["send", "--records", "1", "--templates", "vax"],
        &["corpus", "--out", "/nonexistent/x"],
        &["verify"],
        &["what"],
    ] {
        assert_eq!(loadgen(args).0, 2, "{args:?}");
    }
    let (code, message) = loadgen(&["send", "--records", "1", "--to", "127.0.0.1:1"]);
    assert!(code == 1 && message.as_str().unwrap().contains("connecting to 127.0.0.1:1"));
}

#[test]
fn a_probe_holds_if_its_record_is_accepted_and_found() {
    let probe = |fault, further: &[&str]| {
        let node = Node::start(fault, RECORD_BYTES_MAX);
        let mut args = vec!["probe", "--to", &node.ingest, "--api", &node.api];
        args.extend(["--records", "1", "--patience", "300ms"]);
        args.extend(further);
        loadgen(&args)
    };
    let (code, report) = probe(Fault::None, &[]);
    assert_eq!((code, &report["records_found"]), (0, &1.into()), "{report}");
    let (accepted, found) = (&report["accept_max_us"], &report["find_p99_us"]);
    assert!(accepted.as_u64() >= Some(1) && found.as_u64() > accepted.as_u64(), "{report}");

    let (code, report) = probe(Fault::LoseOne, &[]);
    assert_eq!((code, &report["records_accepted"]), (1, &1.into()), "{report}");
    assert!(report["error"].as_str().unwrap().contains("does not find it"), "{report}");
    assert_eq!(probe(Fault::LoseOne, &["--no-find"]).0, 0);

    // This stand-in answers every request with what it holds, and keeps nothing of a body.
    let (code, report) = probe(Fault::None, &["--post"]);
    assert_eq!((code, &report["records_accepted"]), (1, &1.into()), "{report}");

    let (code, report) = loadgen(&["probe", "--to", "127.0.0.1:1", "--records", "2"]);
    assert_eq!((code, &report["records_accepted"]), (1, &0.into()), "{report}");
}
