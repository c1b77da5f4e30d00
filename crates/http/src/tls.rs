//! TLS with rustls and ring.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

/// A certificate and key that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read, or is not what it should be.
    #[error("{}: {what}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What was expected of it.
        what: &'static str,
        /// What was found.
        source: rustls::pki_types::pem::Error,
    },
    /// The certificate and the key do not go together, or are of a kind that is not supported.
    #[error("the certificate and the key cannot be used together")]
    Unusable(#[source] rustls::Error),
}

/// What [`crate::Listener::tcp`] needs for TLS: a certificate chain and its key, PEM files.
///
/// ```
/// let missing = std::path::Path::new("/nonexistent.pem");
/// let error = longshore_http::tls_acceptor(missing, missing).err().ok_or("it is not there")?;
/// assert!(error.to_string().starts_with("/nonexistent.pem"));
/// # Ok::<(), &str>(())
/// ```
///
/// # Errors
///
/// Files that cannot be read, are not PEM, or do not go together.
pub fn tls_acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor, TlsError> {
    let wrong = |path: &Path, what: &'static str| {
        let path = path.to_owned();
        move |source| TlsError::File { path, what, source }
    };
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(wrong(
            certificate,
            "no certificates in PEM form can be read",
        ))?;
    let key = PrivateKeyDer::from_pem_file(key)
        .map_err(wrong(key, "no private key in PEM form can be read"))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(TlsError::Unusable)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
