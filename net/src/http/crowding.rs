//! When to tell that connections are at their limit: once as it is reached, once as it is over.
//!
//! Invariant: it is over only when a quarter of the places is free again, so that a server which
//! stays about full does not tell about every connection.

/// See the module page.
#[derive(Debug)]
pub(super) struct Crowding {
    places: usize,
    is_full: bool,
}

impl Crowding {
    /// For so many connections at a time.
    pub(super) fn new(places: usize) -> Self {
        Self { places, is_full: false }
    }

    /// A connection was refused; whether that is to be told.
    pub(super) fn refused(&mut self) -> bool {
        !std::mem::replace(&mut self.is_full, true)
    }

    /// A connection was taken and so many places are left; whether it is to be told that the
    /// limit is no longer reached.
    pub(super) fn accepted(&mut self, free: usize) -> bool {
        let is_over = self.is_full && free >= self.places / 4;
        self.is_full &= !is_over;
        is_over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_is_told_once() {
        let mut crowding = Crowding::new(8);
        assert!(!crowding.accepted(0), "full, but nobody was refused");
        assert!(crowding.refused());
        assert!(!crowding.refused());
        // One goes, one comes, one is refused, and so on.
        assert!(!crowding.accepted(0) && !crowding.refused() && !crowding.accepted(1));
        assert!(crowding.accepted(2));
        assert!(!crowding.accepted(2));
        assert!(crowding.refused());
    }
}
