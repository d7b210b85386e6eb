//! Makes the files of the web page (`ui/`) ready to be served: each once as it is and once compressed,
//! under a name that changes with the whole set, so that browsers may keep them for good.
//!
//! Invariants: nothing but this package is read and no tool but Rust is needed; the pages themselves alone
//! (`.html`) have lasting names, and their `{{SET}}` becomes the set's.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use flate2::Compression;
use flate2::write::GzEncoder;

fn main() -> io::Result<()> {
    let variable = |name: &str| env::var_os(name).map(PathBuf::from).ok_or(io::ErrorKind::NotFound);
    let source = variable("CARGO_MANIFEST_DIR")?.join("ui");
    let out = variable("OUT_DIR")?.join("ui");
    println!("cargo::rerun-if-changed={}", source.display());
    fs::create_dir_all(&out)?;
    let mut files = Vec::new();
    for entry in fs::read_dir(&source)? {
        let path = entry?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        files.push((name.ok_or(io::ErrorKind::InvalidData)?, fs::read(&path)?));
    }
    files.sort();
    let set = hash(files.iter().flat_map(|(name, bytes)| [name.as_bytes(), bytes]));
    let mut table = format!("/// Changes with any of the files.\nconst SET: &str = \"{set}\";\n");
    writeln!(table, "/// By name.\nconst FILES: [File; {}] = [", files.len())
        .map_err(io::Error::other)?;
    for (name, bytes) in files {
        write_file(&out, &name, bytes, &set, &mut table)?;
    }
    table.push_str("];\n");
    fs::write(out.with_file_name("page_files.rs"), table)
}

/// Writes both forms of a file, and its row of the table.
fn write_file(
    out: &Path,
    name: &str,
    mut bytes: Vec<u8>,
    set: &str,
    table: &mut String,
) -> io::Result<()> {
    let ending = name.rsplit_once('.').map(|(_, ending)| ending);
    if ending == Some("html") {
        let text = String::from_utf8(bytes).map_err(io::Error::other)?;
        bytes = text.replace("{{SET}}", set).into_bytes();
    }
    if matches!(ending, Some("js" | "css")) {
        bytes = lean(&String::from_utf8(bytes).map_err(io::Error::other)?).into_bytes();
    }
    if ending == Some("js") {
        // No text has such an arrow.
        bytes =
            String::from_utf8(bytes).map_err(io::Error::other)?.replace(" => ", "=>").into_bytes();
    }
    if ending == Some("css") {
        bytes = without_spaces(String::from_utf8(bytes).map_err(io::Error::other)?).into_bytes();
    }
    let kind = match ending {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => return Err(io::Error::other(format!("ui/{name}: of what kind is it?"))),
    };
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&bytes)?;
    let tag = hash([bytes.as_slice()]);
    fs::write(out.join(name), &bytes)?;
    fs::write(out.join(format!("{name}.gz")), encoder.finish()?)?;
    let form = |path: &str, tag: &str| {
        let bytes = format!("include_bytes!(concat!(env!(\"OUT_DIR\"), \"/ui/{path}\"))");
        format!("Form {{ bytes: {bytes}, tag: \"\\\"{tag}\\\"\" }}")
    };
    let plain = form(name, &tag);
    let gzip = form(&format!("{name}.gz"), &format!("{tag}-gz"));
    let row = format!("File {{ name: {name:?}, kind: {kind:?}, plain: {plain}, gzip: {gzip} }},");
    writeln!(table, "    {row}").map_err(io::Error::other)
}

/// A script or style sheet without indentation, comments and the ends of lines that need none, which nobody
/// reads in a browser. Comments are `/* … */` wherever they stand and `//` where a line begins; the files have
/// neither in a text, and no text that goes over several lines.
fn lean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("/*") {
        let (before, from) = rest.split_at(start);
        out.push_str(before);
        let end = from.find("*/").map_or(from.len(), |end| end + 2);
        rest = from[end..].trim_start_matches(' ');
    }
    out.push_str(rest);
    let lines = out.lines().map(str::trim);
    let kept = lines.filter(|line| !line.is_empty() && !line.starts_with("//"));
    let mut all = String::with_capacity(out.len());
    for line in kept {
        all.push_str(line);
        if !line.ends_with(['{', ';', ',']) || line.contains("//") {
            all.push('\n');
        }
    }
    all
}

/// A style sheet without spaces that mean nothing; no text in it has such.
fn without_spaces(mut sheet: String) -> String {
    for (from, to) in [
        (" {", "{"),
        ("{ ", "{"),
        ("; ", ";"),
        (" }", "}"),
        (": ", ":"),
        (", ", ","),
        ("}\n", "}"),
        (";}", "}"),
    ] {
        sheet = sheet.replace(from, to);
    }
    sheet
}

/// FNV-1a, 64 bits (<http://www.isthe.com/chongo/tech/comp/fnv/>): tells versions apart, no attackers.
fn hash<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in parts.into_iter().flatten() {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("{hash:016x}")
}
