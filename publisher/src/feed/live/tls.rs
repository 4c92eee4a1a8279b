//! Whom to trust.

use super::{LiveSettings, socket::Turns};
use crate::feed::FeedError;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use std::{path::Path, sync::Arc};

/// A secured byte stream.
pub(super) type TlsStream = rustls::StreamOwned<rustls::ClientConnection, Turns>;

/// The certificates of a file.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, FeedError> {
    let wrong = |problem: String| FeedError::Venue {
        url: path.display().to_string(),
        problem,
        remedy: "name a file of PEM certificates with ca=FILE, or leave it out to trust Mozilla's",
    };
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let found = found.map_err(|error| wrong(format!("cannot be read as certificates: {error}")))?;
    if found.is_empty() { Err(wrong("holds no certificate".to_owned())) } else { Ok(found) }
}

/// For requests.
pub(super) fn http_config(settings: &LiveSettings) -> Result<ureq::tls::TlsConfig, FeedError> {
    let roots = match &settings.ca_file {
        None => ureq::tls::RootCerts::WebPki,
        Some(path) => {
            let found = certificates(path)?;
            let found: Vec<_> = found.iter().map(|it| ureq::tls::Certificate::from_der(it).to_owned()).collect();
            ureq::tls::RootCerts::new_with_certs(&found)
        }
    };
    Ok(ureq::tls::TlsConfig::builder().root_certs(roots).build())
}

/// For streams: TLS over a connection. Its handshake takes place as bytes are read and written.
pub(super) fn secure(settings: &LiveSettings, host: &str, tcp: Turns) -> Result<TlsStream, String> {
    let name = ServerName::try_from(host.to_owned()).map_err(|error| format!("{host}: {error}"))?;
    let mut roots = rustls::RootCertStore::empty();
    match &settings.ca_file {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(path) => {
            for certificate in certificates(path).map_err(|error| error.to_string())? {
                roots.add(certificate).map_err(|error| format!("{}: {error}", path.display()))?;
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|error| error.to_string())?.with_root_certificates(roots).with_no_client_auth();
    let connection = rustls::ClientConnection::new(Arc::new(config), name).map_err(|error| error.to_string())?;
    Ok(rustls::StreamOwned::new(connection, tcp))
}
