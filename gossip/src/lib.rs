//! Who is in the cluster: membership by gossip (SWIM, done by the library `foca`), as a pure machine.
//!
//! The shell hands [`Gossip`] datagrams, names that it looked up, and the time; it takes [`Effect`]s: send
//! this, look that up, keep this, tell that, stop. From a start on:
//!
//! 1. Seeds are looked up ([`Effect::Resolve`]) and asked, as is everybody who was met before. A question
//!    introduces who asks: its cluster, versions, ids, copies ([`Member`]).
//! 2. Answers say who is there, and what is known of the one who asks: if one of its ids lives elsewhere,
//!    it stops ([`Stop`]); who does not agree is refused, in a line that names both ([`Refusal`]).
//! 3. Then it is in: it is announced, fed with the other members, and probed, as it probes them.
//! 4. With everything it sends it says of itself what changes often ([`Facts`]).
//! 5. Everybody who was ever met stays on the list ([`Gossip::members`], [`Saved`]) until he is forgotten.
//!
//! Reasons and figures are in decision 0018, bytes in `docs/protocol-cluster.md`.
//!
//! Invariants: no thread, clock, socket or randomness of its own; the same calls give the same effects;
//! bytes of strangers never panic, never size an allocation, and never make more work than their number.

#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

mod bytes_in;
mod clocks;
mod codec;
mod contacts;
mod event;
mod facts;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod golden_tests;
pub mod limits;
mod machine;
mod member;
mod message;
mod random;
mod refusal;
mod roll;
mod saved;
mod seal;
#[cfg(test)]
mod testing;
mod timers;
mod told;
mod view;
mod window;

pub use event::{Effect, Event, Stop};
pub use facts::Facts;
pub use machine::{Counts, Gossip, Now, Settings};
pub use member::{Member, ProcessId, Protocol, Sides};
pub use refusal::{Refusal, Verdict, Why};
pub use saved::{Saved, SavedError};
pub use seal::{SecretError, Secrets};
pub use view::{ForgetError, Forgotten, State, View};
