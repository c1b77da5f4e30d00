//! The worker-pool state machine (pure), and with feature runtime tokio around it.
