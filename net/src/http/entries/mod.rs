//! The interface of OgLogStream: entries of a level, a message, a service and a time, as JSON.
//!
//! An entry is a record like any other: one line of compact JSON, its fields always in the same order, under
//! the topic of `--http.log-topic`. `entry` is its form and what is valid; `body` brings the bytes of a
//! request, `batch` takes several entries out of them; `desk` has those that come at the same time share an
//! append and a sync; `post` are `POST /log` and `POST /logs`. `wanted` says which entries somebody asks for,
//! `shown` finds or counts them (`/api/logs`, `/api/stats`), `array` is how they are sent;
//! `live` follows (`/ws/live`), on a `websocket`.
//!
//! Invariants: what is not valid in every field is refused before anything of its request is kept; 202 is
//! said once all of it is on disk, synced; what is held of bodies is taken before.

mod array;
mod batch;
mod body;
mod desk;
mod entry;
mod live;
mod post;
mod shown;
mod wanted;
mod websocket;

pub(super) use self::desk::EntryDesk;
pub(super) use self::live::{SessionSlot, live};
pub(super) use self::post::{log, logs};
pub use self::shown::StatsShape;
pub(super) use self::shown::{logs as shown, stats};
