//! Whole nodes on a simulated disk: one thread, one seed, time as a value. What is broken is
//! reported with the seed that shows it; `OKLOGD_SEEDS=N` tries the first N seeds instead of the
//! default number ([`seeds`]).

#![allow(clippy::unwrap_used)] // all of this is test code

mod asking;
mod claims;
mod clock;
mod coverage;
mod crash;
mod effects;
mod ending;
mod every_call;
mod fast_forward;
mod faults;
mod model;
mod node;
mod seeds;
mod settings;
mod side_by_side;
mod told;
mod topics;
mod vanishing;
