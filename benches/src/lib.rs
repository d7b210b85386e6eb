//! Benches of the hot paths, and of the choices that `docs/decisions/` records. Each is a target
//! in `benches/benches`; `cargo bench -p benches` runs them all, `-- --quick` runs them briefly.
