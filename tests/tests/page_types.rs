//! The types that the scripts of the web page name in their comments hold, as TypeScript's compiler sees them.

use std::path::{Path, PathBuf};
use std::process::Command;

use tests::{skipped, tools};

/// As strict as it is; nothing is written.
const FLAGS: [&str; 12] = [
    "--allowJs",
    "--checkJs",
    "--noEmit",
    "--strict",
    "--target",
    "esnext",
    "--module",
    "esnext",
    "--moduleResolution",
    "bundler",
    "--lib",
    "esnext,dom,dom.iterable",
];

/// What the compiler has to say of these files, or nothing if there is none.
fn check(files: &[PathBuf]) -> Option<String> {
    let compiler = tools::npm("typescript", "lib/tsc.js")?;
    let run = Command::new("node").arg(compiler).args(FLAGS).args(files).output().ok()?;
    let said = tools::text(&run.stdout);
    assert_eq!(run.status.success(), said.is_empty(), "{said}");
    Some(said)
}

#[test]
fn the_scripts_of_the_page_have_the_types_that_they_name() {
    let ui = Path::new(env!("CARGO_MANIFEST_DIR")).join("../net/ui");
    let files = std::fs::read_dir(ui).unwrap().map(|file| file.unwrap().path());
    let scripts: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|ending| ending == "js")).collect();
    assert!(scripts.len() > 20, "{scripts:?}");
    let Some(said) = check(&scripts) else {
        skipped(
            "the_scripts_of_the_page_have_the_types_that_they_name",
            "no typescript and node: tests/run installs the former where npm is there",
        );
        return;
    };
    assert_eq!(said, "");
    // It would say so if one did not.
    let directory = tempfile::tempdir().unwrap();
    let wrong = directory.path().join("wrong.js");
    std::fs::write(&wrong, "/** @param {number} n */\nexport const one = (n) => n.length;\n")
        .unwrap();
    assert!(check(&[wrong]).unwrap().contains("TS2339"));
}
