//! The promises of a cloud driver, as tests that any driver can run.
