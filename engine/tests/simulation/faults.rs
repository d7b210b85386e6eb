//! EIO and ENOSPC.
