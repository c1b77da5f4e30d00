//! A driver that presents this machine as an instance, over real SSH on loopback.
