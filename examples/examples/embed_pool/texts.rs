//! Keeps what payloads print, in memory.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use longshore_exec::{OutputSink, OutputStore};
use longshore_types::{Attempt, ContainerUuid};

/// The most bytes of a stream that are kept: its last ones.
const MOST: u64 = 64 * 1024;

type Kept = BTreeMap<(ContainerUuid, &'static str), Vec<u8>>;

#[derive(Clone, Debug, Default)]
pub(crate) struct Texts(Arc<Mutex<Kept>>);

#[derive(Debug)]
struct Sink {
    texts: Texts,
    key: (ContainerUuid, &'static str),
    bytes: Vec<u8>,
}

impl Texts {
    /// What a payload printed, and nothing from then on.
    pub(crate) fn take(&self, uuid: ContainerUuid) -> String {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.remove(&(uuid, "stderr"));
        let bytes = kept.remove(&(uuid, "stdout")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).trim().to_owned()
    }
}

#[async_trait]
impl OutputStore for Texts {
    async fn wanted(&self, _: ContainerUuid) -> io::Result<Option<u64>> {
        Ok(Some(MOST))
    }

    async fn begin(
        &self,
        uuid: ContainerUuid,
        _: Attempt,
        stream: &'static str,
        _: u64,
    ) -> io::Result<Box<dyn OutputSink>> {
        let (texts, key) = (self.clone(), (uuid, stream));
        let bytes = Vec::new();
        Ok(Box::new(Sink { texts, key, bytes }))
    }
}

#[async_trait]
impl OutputSink for Sink {
    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    async fn finish(&mut self) -> io::Result<()> {
        let mut kept = self.texts.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.insert(self.key, std::mem::take(&mut self.bytes));
        Ok(())
    }
}
