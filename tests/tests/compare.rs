//! `loadgen compare` against the real node: every figure of the README's table, on a tiny corpus.

use std::process::Command;

use tests::tools;

#[test]
fn a_tiny_comparison_fills_the_whole_table() {
    let scratch = tempfile::tempdir().unwrap();
    if tools::is_root() {
        // The node runs as an ordinary user, who must get through to its own directory.
        let through = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(scratch.path(), through).unwrap();
    }
    let mut command = Command::new(tools::binary("loadgen"));
    command.args(["compare", "--bytes", "2MiB", "--rounds", "1", "--singles", "20", "--json"]);
    command.args(["--sustain", "1s", "--arrival", "1s", "--common-word", "session"]);
    let parts = "ingest,durable,store,skips,queries,arrival,sustained,trickle";
    command.args(["--only", parts, "--trickle-warm-up", "500ms", "--trickle-for", "1s"]);
    command.arg("--oklogd").arg(tools::binary("oklogd")).arg("--scratch").arg(scratch.path());
    if let Some(rg) = tools::ripgrep() {
        command.arg("--rg").arg(rg.canonicalize().unwrap_or(rg));
    }
    let output = command.output().unwrap();
    let said = tools::text(&output.stderr);
    assert!(output.status.success(), "{said}");
    let table: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = table["rows"].as_array().unwrap();
    let row = |what: &str| rows.iter().find(|row| row["what"].as_str().unwrap().starts_with(what));
    for what in [
        "ingest, fast, 64 × 1500 B chunks",
        "ingest, durable, 4 × bulk",
        "durable, 64 × 1 MiB in flight",
        "durable, one record at a time",
        "everything in the store",
        "store on disk",
        "arrival → found",
        "sustained for 1 s",
        "written/byte at 1.00 MB/s",
        "absent UUID",
        "blocks skipped, absent UUID",
        "blocks skipped, absent IPv4",
        "blocks skipped, absent English word of 13",
        "cold: every line",
        "newest 100 lines",
    ] {
        let row = row(what).unwrap_or_else(|| panic!("no row {what}: {table}"));
        assert!(row["value"]["median"].as_f64().unwrap() > 0.0, "{row}");
    }
    let remark = row("rare word").unwrap()["remarks"][0].as_str().unwrap();
    assert!(remark.starts_with("1000 lines"), "{remark}");
    let left: Vec<_> = std::fs::read_dir(scratch.path()).unwrap().collect();
    assert!(left.is_empty(), "the scratch directory is left behind: {left:?}");
}

#[test]
fn a_missing_node_is_told() {
    let mut command = Command::new(tools::binary("loadgen"));
    command.args(["compare", "--bytes", "1kB", "--oklogd", "/nowhere/oklogd"]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = tools::text(&output.stderr);
    assert!(said.contains("/nowhere/oklogd") && said.contains("--oklogd PATH"), "{said}");
}
