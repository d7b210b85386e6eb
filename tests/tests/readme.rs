//! README and the pages for users: their examples are what a node answers, and their links lead somewhere.
//!
//! Each example is run, against the records that the pages show. Times, ULIDs and figures may differ; keys and
//! their order, words and records may not. That their command lines are read is a test of `daemon`.

use std::path::{Path, PathBuf};

use tests::node::Node;
use tests::{http, sender, tools};

/// A command and what it prints.
struct Example {
    command: String,
    output: Vec<String>,
}

/// The longest README that is read in a minute, lines.
const README_LINES_MAX: usize = 250;

/// Pages that show a console, in the order in which a reader comes by.
const WITH_EXAMPLES: [&str; 3] = ["README.md", "docs/ingest.md", "docs/query.md"];

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

fn page(name: &str) -> String {
    std::fs::read_to_string(workspace().join(name)).unwrap()
}

/// Those in blocks that show a console.
fn examples() -> Vec<Example> {
    let text = WITH_EXAMPLES.map(page).concat();
    let mut found: Vec<Example> = Vec::new();
    let mut is_console = false;
    for line in text.lines() {
        if line.starts_with("```") {
            is_console = line == "```console";
        } else if is_console && let Some(command) = line.strip_prefix("$ ") {
            found.push(Example { command: command.to_owned(), output: Vec::new() });
        } else if is_console && !line.is_empty() {
            found.last_mut().expect("a command comes first").output.push(line.to_owned());
        }
    }
    found
}

/// The words of a command, as a shell takes it apart; only single quotes are known.
fn words(command: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for (number, part) in command.split('\'').enumerate() {
        let last = words.last_mut().expect("never empty");
        if number % 2 == 1 {
            last.push_str(part);
            continue;
        }
        let mut pieces = part.split(' ');
        last.push_str(pieces.next().unwrap_or_default());
        words.extend(pieces.map(str::to_owned));
    }
    words.retain(|word| !word.is_empty());
    words
}

/// The records that an example shows.
fn records(example: &Example) -> Vec<String> {
    let given = words(&example.command);
    let has = |word: &str| given.iter().any(|given| given == word);
    if has("--stats") || has("--data-binary") || has("--topic") {
        return Vec::new();
    }
    let record = |line: &String| {
        let is_json = line.starts_with('{');
        let object: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
        let skipped = if has("--time") || given[0] == "curl" { line.find(' ')? + 1 } else { 0 };
        if is_json {
            Some(object["record"].as_str()?.to_owned())
        } else {
            Some(line[skipped..].into())
        }
    };
    example.output.iter().filter_map(record).collect()
}

/// What the example prints here.
fn run(node: &Node, example: &Example) -> Vec<String> {
    let given = words(&example.command);
    let output = if given[0] == "oklogd" {
        let api = node.api.to_string();
        let mut line: Vec<&str> = given[1..].iter().map(String::as_str).collect();
        line.extend(["--store", &api]);
        let output = tools::oklogd(&line);
        assert_eq!(output.status.code(), Some(0), "{}", tools::text(&output.stderr));
        output.stdout
    } else {
        ask(node, &given)
    };
    tools::text(&output).lines().map(str::to_owned).collect()
}

/// What `curl` does with these words.
fn ask(node: &Node, given: &[String]) -> Vec<u8> {
    let url = given.iter().find_map(|word| word.strip_prefix("localhost:7650"));
    let mut path = url.expect("it asks a node").to_owned();
    let mut headers = Vec::new();
    for pair in given.windows(2) {
        match pair[0].as_str() {
            "-H" => headers.push(pair[1].split_once(": ").expect("a header")),
            "-d" | "--data-urlencode" => {
                let (name, value) = pair[1].split_once('=').expect("a parameter");
                path.push(if path.contains('?') { '&' } else { '?' });
                path.push_str(&format!("{name}={}", http::encode(value)));
            }
            _ => {}
        }
    }
    let body = (given[0] == "printf").then(|| given[1].replace("\\n", "\n"));
    let method = if body.is_some() { "POST" } else { "GET" };
    let body = body.unwrap_or_default();
    let answer = http::try_request(node.api, method, &path, &headers, body.as_bytes()).unwrap();
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer.body
}

/// A line without what differs from run to run.
fn form(line: &str, has_figures: bool) -> String {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "-:.".contains(c);
    let mut form = String::new();
    let mut rest = line;
    while let Some(first) = rest.chars().next() {
        let len = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        let (token, behind) = rest.split_at(if len == 0 { first.len_utf8() } else { len });
        rest = behind;
        let is_ulid = token.len() == 26 && !token.contains(['-', ':']);
        let is_time = token.len() == 24 && token.starts_with("20") && token.ends_with('Z');
        let is_figure = has_figures && token.trim_start_matches(':').parse::<f64>().is_ok();
        match (is_ulid, is_time, is_figure) {
            (true, ..) => form.push_str("ULID"),
            (_, true, _) => form.push_str("TIME"),
            (.., true) => form.push('0'),
            _ => form.push_str(token),
        }
    }
    form.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn the_examples_of_the_pages_are_what_a_node_answers() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &["--cores", "1"]);
    let examples = examples();
    let mut lines = Vec::new();
    for record in examples.iter().flat_map(records) {
        if !lines.contains(&record) {
            lines.push(record);
        }
    }
    sender::send(node.durable, (lines.join("\n") + "\n").as_bytes());
    for example in &examples {
        let has_figures = |line: &str| line.starts_with('{') || example.command.contains("--stats");
        let forms = |lines: &[String]| -> Vec<String> {
            lines.iter().map(|line| form(line, has_figures(line))).collect()
        };
        let (shown, printed) = (forms(&example.output), forms(&run(&node, example)));
        assert_eq!(shown, printed, "{}", example.command);
    }
    assert!(examples.len() >= 8 && lines.len() >= 8, "{} {}", examples.len(), lines.len());
}

#[test]
fn readme_is_short_and_begins_with_the_two_commands_that_set_it_up() {
    let readme = page("README.md");
    let lines = readme.lines().count();
    assert!(lines <= README_LINES_MAX, "{lines} lines");
    let blocks: Vec<_> = readme.split("```sh\n").skip(1).collect();
    let commands = blocks.iter().map(|block| block.split("\n```").next().unwrap()).take(2);
    let expected = [
        "cargo run --release -p daemon -- ingeststore --store.segment-replication-factor 1",
        "bash tests/run",
    ];
    assert!(commands.eq(expected), "{blocks:?}");
}

/// Every page of the project, tests' own data apart.
fn pages() -> Vec<PathBuf> {
    let places = ["", "docs", "docs/decisions", "deploy", ".github/ISSUE_TEMPLATE"];
    let mut pages = Vec::new();
    for place in places {
        for entry in std::fs::read_dir(workspace().join(place)).unwrap() {
            pages.push(entry.unwrap().path());
        }
    }
    pages.retain(|path| path.extension().is_some_and(|end| end == "md"));
    pages
}

/// Without code, in blocks and in lines.
fn prose(text: &str) -> String {
    let mut is_code = false;
    let mut prose = String::new();
    for line in text.lines() {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        if !is_code && !is_fence {
            prose.push_str(line);
            prose.push('\n');
        }
    }
    prose
}

/// Where `[…](target)` leads.
fn links(text: &str) -> Vec<String> {
    let text = prose(text);
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    targets.map(|(target, _)| target.to_owned()).collect()
}

/// What a heading is linked by.
fn anchor(heading: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || " -_".contains(*c);
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    text.chars().filter(kept).map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn has_anchor(page: &Path, wanted: &str) -> bool {
    let text = std::fs::read_to_string(page).unwrap();
    let is_named = text.contains(&format!("<a id=\"{wanted}\">"));
    is_named || prose(&text).lines().any(|line| line.starts_with('#') && anchor(line) == wanted)
}

#[test]
fn every_link_of_every_page_leads_to_what_is_there() {
    let mut found = 0;
    for page in pages() {
        let text = std::fs::read_to_string(&page).unwrap();
        for link in links(&text).iter().filter(|link| !link.contains("://")) {
            let (path, wanted) = link.split_once('#').unwrap_or((link, ""));
            let target = match path {
                "" => page.clone(),
                path => page.parent().unwrap().join(path),
            };
            assert!(target.exists(), "{}: {link}", page.display());
            let is_found = wanted.is_empty() || has_anchor(&target, wanted);
            assert!(is_found, "{}: no heading is {link}", page.display());
            found += 1;
        }
    }
    assert!(found > 100, "{found}");
}

#[test]
fn every_page_for_users_is_reached_from_readme() {
    let readme = links(&page("README.md"));
    let top = pages().into_iter().filter(|page| page.parent() == Some(&workspace()));
    for page in top {
        let name = page.file_name().unwrap().to_string_lossy().into_owned();
        assert!(name == "README.md" || readme.contains(&name), "README does not lead to {name}");
    }
}

#[test]
fn links_and_headings_are_read_as_they_are_meant() {
    assert_eq!(links("a [b](c.md#d) ![e](f.png)\n```\n[x](y)\n```\n"), ["c.md#d", "f.png"]);
    assert_eq!(anchor("## Old → new"), "old--new");
    assert_eq!(anchor("### What `oklogd forward` does"), "what-oklogd-forward-does");
    assert_eq!(anchor("### GET /query"), "get-query");
}
