//! An executor over libssh2: one task per session and its channels.
