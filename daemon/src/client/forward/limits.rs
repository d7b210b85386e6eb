//! What a forwarder holds and waits for at most, with the unit and the reason of each bound.

use std::time::Duration;

/// Lines that a forwarder sends at a time, bytes: enough for the socket's speed, little enough to
/// drop when the oldest go.
pub(crate) const FORWARD_PIECE_BYTES: usize = 64 << 10;

/// What a piece in a forwarder's memory costs beside its bytes.
pub(crate) const FORWARD_PIECE_OVERHEAD_BYTES: usize = 128;

/// Bytes on their way to an ingester that acknowledges: beyond it the forwarder waits. More than
/// the largest record ([`engine::limits::RECORD_SIZE_CEILING`]) that an ingester holds before it
/// can acknowledge it.
pub(crate) const FORWARD_WINDOW_BYTES_MAX: usize = 24 << 20;

/// How long connecting to one address may take.
pub(crate) const FORWARD_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long looking a name up may take, all tries together.
pub(crate) const FORWARD_LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);

/// The first pause between tries; full jitter, doubling.
pub(crate) const FORWARD_BACKOFF_BASE: Duration = Duration::from_millis(50);

/// How long an ingester may take to answer the hello: it does so before it takes a line, unless it is
/// stuck or full.
pub(crate) const FORWARD_ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection that lasted this long counts as a success, also without acknowledgements.
pub(crate) const FORWARD_STEADY: Duration = Duration::from_secs(2);

/// A connection on which nothing moves for this long is left: longer than a disk that works takes
/// for a sync, and so that the next address has the lines within 40 s.
pub(crate) const FORWARD_STALL: Duration = Duration::from_secs(30);

/// Sent bytes that the other host does not confirm for this long end the connection.
pub(crate) const FORWARD_USER_TIMEOUT: Duration = Duration::from_secs(60);

/// What a socket may hold that is not on the wire, bytes: little, so that what it takes shows how the
/// other host gets on, enough to keep the wire busy.
pub(crate) const FORWARD_UNSENT_BYTES: u32 = 256 << 10;

/// What is still read of standard input when the time for it is over, bytes: as much as a pipe holds
/// at most, unless an administrator allowed more.
pub(crate) const FORWARD_LAST_READ_BYTES: usize = 1 << 20;

/// How long that reading may take.
pub(crate) const FORWARD_LAST_READ: Duration = Duration::from_millis(200);

/// How long what was read last is waited for to be acknowledged.
pub(crate) const FORWARD_LAST_ACKNOWLEDGEMENTS: Duration = Duration::from_secs(1);

/// What ending may take beyond its time before it is given up: a disk or a look-up hangs.
pub(crate) const FORWARD_STUCK: Duration = Duration::from_secs(1);

/// Most addresses of one answer of the name service that are tried.
pub(crate) const FORWARD_ADDRESSES_MAX: usize = 64;

/// How often dropped records are told at most.
pub(crate) const FORWARD_TELL_INTERVAL: Duration = Duration::from_secs(10);

/// HTTP connections of a forwarder at a time; further ones are closed at once.
pub(crate) const FORWARD_HTTP_CONNECTIONS_MAX: usize = 64;
