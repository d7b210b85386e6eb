//! Ripgrep on the raw file, and behind `zstd -dc` on the compressed one; their output is read and
//! thrown away, or handed out.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use super::cases::Case;
use crate::failure::{Context, Failure, Result};

const READ_BYTES: usize = 256 << 10;

/// What there is to compare queries with.
#[derive(Debug)]
pub(super) struct Searchers {
    pub(super) rg: Option<String>,
    /// The program and the compressed corpus.
    pub(super) zstd: Option<(String, PathBuf)>,
    pub(super) raw: PathBuf,
}

impl Searchers {
    /// Finds out what can be run, and compresses the corpus if that can be searched.
    pub(super) fn find(rg: &str, zstd: &str, raw: &Path) -> Result<Self> {
        let rg = answers(rg).then(|| rg.to_string());
        let mut searchers = Self { rg, zstd: None, raw: raw.to_path_buf() };
        if searchers.rg.is_some() && answers(zstd) {
            let compressed = raw.with_extension("zst");
            let mut command = Command::new(zstd);
            command.args(["-q", "-3", "-T0", "-f"]).arg(raw).arg("-o").arg(&compressed);
            let status = command.status().context(|| format!("running {zstd}"))?;
            if !status.success() {
                return Err(Failure::run(format!("{zstd} ended with {status}")));
            }
            searchers.zstd = Some((zstd.to_string(), compressed));
        }
        Ok(searchers)
    }

    /// Milliseconds on the raw file; `None` where ripgrep is missing or has no such search.
    pub(super) fn time_raw(&self, case: &Case) -> Result<Option<f64>> {
        let start = Instant::now();
        let ran = self.search_raw(case, &mut |_| {})?;
        Ok(ran.then(|| start.elapsed().as_secs_f64() * 1e3))
    }

    /// Hands out what ripgrep prints; false where it is missing or has no such search.
    pub(super) fn search_raw(&self, case: &Case, each: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let (Some(rg), Some(arguments)) = (&self.rg, case.rg_arguments()) else {
            return Ok(false);
        };
        let mut command = Command::new(rg);
        command.args(arguments).arg(&self.raw).stdin(Stdio::null());
        finish(start(command, rg)?, rg, each)?;
        Ok(true)
    }

    /// Milliseconds of `zstd -dc | rg`.
    pub(super) fn time_compressed(&self, case: &Case) -> Result<Option<f64>> {
        let (Some(rg), Some((zstd, compressed)), Some(arguments)) =
            (&self.rg, &self.zstd, case.rg_arguments())
        else {
            return Ok(None);
        };
        let begin = Instant::now();
        let mut unpack = Command::new(zstd);
        unpack.args(["-dcq", "--"]).arg(compressed).stdin(Stdio::null());
        let mut unpacking = start(unpack, zstd)?;
        let mut search = Command::new(rg);
        search.args(arguments).arg("-");
        if let Some(output) = unpacking.stdout.take() {
            search.stdin(output);
        }
        finish(start(search, rg)?, rg, &mut |_| {})?;
        unpacking.wait().context(|| format!("running {zstd}"))?;
        Ok(Some(begin.elapsed().as_secs_f64() * 1e3))
    }

    /// The files that are searched.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let compressed = self.zstd.iter().map(|(_, path)| path.clone());
        std::iter::once(self.raw.clone()).chain(compressed).collect()
    }
}

fn answers(program: &str) -> bool {
    let mut command = Command::new(program);
    command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn start(mut command: Command, name: &str) -> Result<Child> {
    command.stdout(Stdio::piped()).spawn().context(|| format!("running {name}"))
}

/// Reads to the end. Ripgrep's exit code 1 says that nothing matched.
fn finish(mut child: Child, name: &str, each: &mut dyn FnMut(&[u8])) -> Result<()> {
    use std::io::Read;
    let running = || format!("running {name}");
    if let Some(mut output) = child.stdout.take() {
        let mut buffer = vec![0; READ_BYTES];
        loop {
            match output.read(&mut buffer).context(running)? {
                0 => break,
                count => each(&buffer[..count]),
            }
        }
    }
    let status = child.wait().context(running)?;
    if matches!(status.code(), Some(0 | 1)) {
        return Ok(());
    }
    Err(Failure::run(format!("{name} ended with {status}")))
}
