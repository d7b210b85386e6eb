//! Live followers of a node: the way of a record from the shard that took it to who follows.
//!
//! 1. **Taken.** A shard appends it to its log, and `engine::ingest::log::tap` keeps a copy of what a turn
//!    took, before any of it is on disk. Nothing is kept while nobody follows: the shard then pays one load
//!    of a flag.
//! 2. **Handed over.** At the end of its turn the shard gives the [`Hub`] that copy and a promise: a
//!    millisecond that it will give no stamp before (`Hub::after_turn`). It waits for nobody. A shard that
//!    is quiet while others wait for its promise is made to take a turn.
//! 3. **In order.** The hub's thread, whose `Pulse` shows whether it gets on, brings what all shards took
//!    into one sequence by ULID, as far as their promises reach (`engine::follow::order`).
//! 4. **To whom it concerns.** It looks once for what all followers want (`engine::follow::fanout`) and
//!    puts what each gets, in the form that he asked for, into his queue (`engine::follow::queue`). What
//!    does not fit is counted, and told to who missed it.
//! 5. **Caught up.** Who follows behind a record that he has seen first gets what is kept: a query up to his
//!    boundary (`http::stream::replay`, its lines by `replay_lines`). A *boundary* is a millisecond such that
//!    every record stamped at or behind it reaches the follower live, and every one before it is in any
//!    snapshot that is pinned once the boundary is known: no gap and no copy. Where more came meanwhile than
//!    his queue holds, he subscribes anew and is brought up to another boundary.
//! 6. **Sent.** His connection takes from his [`Subscription`]'s queue as fast as he reads
//!    (`http::stream::body`); `http::stream` is what `GET /stream` asks and how it is answered.
//!
//! Invariants: nobody waits for a follower; one who reads too slowly costs himself. Knows no HTTP.

mod hub;

pub use self::hub::{Hub, Subscription};
