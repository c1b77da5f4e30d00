//! What the `ssh2` crate does not name.

use ssh2::ErrorCode;

/// `LIBSSH2_ERROR_CHANNEL_FAILURE`: the server refused to open a channel.
const CHANNEL_FAILURE: i32 = -21;
/// `LIBSSH2_ERROR_CHANNEL_REQUEST_DENIED`: the server refused to run a command.
const REQUEST_DENIED: i32 = -22;
/// `LIBSSH2_ERROR_EAGAIN`: nothing to do until there is something to read or room to write.
const WOULD_BLOCK: i32 = -37;

pub(crate) fn would_block(error: &ssh2::Error) -> bool {
    error.code() == ErrorCode::Session(WOULD_BLOCK)
}

/// Whether the error is the server's answer, after which the connection goes on.
pub(crate) fn refused(error: &ssh2::Error) -> bool {
    matches!(
        error.code(),
        ErrorCode::Session(CHANNEL_FAILURE | REQUEST_DENIED)
    )
}
