//! The cloud-driver interface of Longshore.
