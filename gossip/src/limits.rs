//! Every bound of membership, with its unit and its reason.

/// Largest datagram that is sent or read, bytes: fits the smallest MTU of IPv6 (1280) with its headers,
/// so that none is ever cut into fragments, whole ones of which get lost with any piece.
pub const DATAGRAM_BYTES_MAX: usize = 1200;

/// Size of every question, bytes: no answer is longer, so that nobody makes a node send more to a stranger
/// than he sent himself.
pub const ASK_BYTES: usize = 512;

/// Most members that are known, those that are down included. The rest is refused and told.
pub const MEMBERS_MAX: usize = 512;

/// Most identities that were forgotten; they are kept for ever, 24 bytes each.
pub const TOMBSTONES_MAX: usize = 4096;

/// Tombstones in one datagram: 24 bytes each.
pub const TOMBSTONES_AT_ONCE: usize = 40;

/// Longest name of a cluster, bytes: it is in every question.
pub const NAME_BYTES_MAX: usize = 64;

/// Most secrets that are valid at once: two are enough for a rotation.
pub const SECRETS_MAX: usize = 16;

/// Shortest secret, bytes: whoever records a datagram may try secrets as fast as he can.
pub const SECRET_BYTES_MIN: usize = 16;

/// Most seeds that are named.
pub const SEEDS_MAX: usize = 64;

/// Most addresses of one seed that are asked.
pub const SEED_ADDRESSES_MAX: usize = 64;

/// Most addresses that are asked in turn, whoever named them.
pub const CONTACTS_MAX: usize = 1024;

/// Questions in one turn; the others have to wait for the next one.
pub const ASKS_AT_ONCE: usize = 8;

/// Questions whose answers are waited for.
pub const ASKS_OPEN_MAX: usize = 256;

/// Processes that introduced themselves and are not members yet.
pub const INTRODUCED_MAX: usize = 256;

/// Time that such an introduction is remembered, milliseconds.
pub const INTRODUCED_MS: u64 = 30_000;

/// Addresses that bad news is told of, once each in [`TOLD_FOR_MS`]: strangers do not fill logs.
pub const TOLD_MAX: usize = 128;

/// Time until the same is told again of the same address, milliseconds.
pub const TOLD_FOR_MS: u64 = 3_600_000;

/// Effects that wait to be carried out; datagrams beyond it are lost, as datagrams may be.
pub const EFFECTS_MAX: usize = 4096;

/// Refusals that strangers are answered with in a second.
pub const REFUSALS_A_SECOND: u32 = 20;

/// How often a member is probed, milliseconds; with the two below a death is seen after 2.3 s, and no
/// process that stands still for two seconds is taken for dead (decision 0018).
pub const PROBE_MS: u64 = 200;

/// Time that a probed member has to answer until others are asked to probe it, milliseconds.
pub const PROBE_RTT_MS: u64 = 80;

/// Time that a suspected member has to speak until it is held to be down, milliseconds.
pub const SUSPECT_MS: u64 = 2_000;

/// The same for those who did not suspect it themselves but heard of it, milliseconds: the answer has to
/// reach them, too.
pub const SUSPECT_HEARD_MS: u64 = SUSPECT_MS + 400;

/// Others that probe a member which does not answer.
pub const INDIRECT_PROBES: usize = 3;

/// How often each change is told on.
pub const TRANSMISSIONS: u8 = 10;

/// How often a random member is asked for all it knows, milliseconds.
pub const ANNOUNCE_MS: u64 = 10_000;

/// Time between the first questions to an address, milliseconds.
pub const ASK_FAST_MS: u64 = 200;

/// Number of such questions.
pub const ASKS_FAST: u32 = 15;

/// Time between later ones, milliseconds; so long it takes at most until a split that is over is noticed.
pub const ASK_SLOW_MS: u64 = 2_000;

/// Time between questions to an address that refused, or was refused, milliseconds: it may be mended.
pub const ASK_REFUSED_MS: u64 = 10_000;

/// Time between questions to the address of a member that has been down for [`DOWN_LONG_MS`].
pub const ASK_DOWN_LONG_MS: u64 = 10_000;

/// Time after which a member is not expected back at any moment, milliseconds.
pub const DOWN_LONG_MS: u64 = 600_000;

/// Time between two looks at the names of seeds while any of them is absent, milliseconds.
pub const RESOLVE_MS: u64 = 30_000;

/// Time that others may claim one of our ids for another address until we give in, milliseconds: longer
/// than they take to see that a former life of ours is dead, shorter than the five seconds after which a
/// copied directory has to have ended its node.
pub const CLAIM_MS: u64 = 4_000;

/// Time that a node which has seeds waits for one that is in the cluster already, before it believes those
/// that just start as well, milliseconds.
pub const ALONE_MS: u64 = 1_000;

/// Ages of two nodes with one id that count as the same, milliseconds: what a datagram may take.
pub const SAME_AGE_MS: u64 = 10_000;

/// Lateness of a turn from which on this process stood still, milliseconds: nobody is held to be down for
/// not having been listened to.
pub const STALL_MS: u64 = 500;

/// Time between two saves that are due to nothing but a watermark, milliseconds.
pub const SAVE_WATERMARK_MS: u64 = 10_000;

/// Distance of clocks that is told, milliseconds.
pub const CLOCK_OFF_MS: u64 = 1_000;

/// Time that it has to last, milliseconds: datagrams that were not read for a while look like one.
pub const CLOCK_OFF_FOR_MS: u64 = 10_000;

/// Time after which what a member said of itself is too old to judge its clock by, milliseconds.
pub const CLOCK_FRESH_MS: u64 = 10_000;
