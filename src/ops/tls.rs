//! TLS of the agent's own requests, to sinks of events and to object stores: rustls with ring, for ureq.
//!
//! Roots are what the system trusts or what the operator names. None are compiled in: a cluster that took an authority
//! out of its image must not trust it because of a list in this binary.
//!
//! Not here: the agents that use it, and TLS towards clients, which there is none of.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_native_certs::{CertificateResult, load_certs_from_paths, load_native_certs};
use ureq::tls::{Certificate, RootCerts, TlsConfig};

/// What a server's certificate is verified against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Roots {
    /// The system's authorities, or those that `SSL_CERT_FILE` and `SSL_CERT_DIR` name.
    System,
    /// The certificates of this PEM file and no others.
    File(PathBuf),
    /// Nothing: whoever answers is taken for the server.
    Unverified,
}

impl Roots {
    /// The files whose change makes other roots. A system's own are part of the image and don't change.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        match self {
            Self::System => std::env::var_os("SSL_CERT_FILE").map(PathBuf::from).into_iter().collect(),
            Self::File(path) => vec![path.clone()],
            Self::Unverified => Vec::new(),
        }
    }
}

/// TLS with these roots, for ureq. The error says where there are none: only who will use TLS should ask, since an image
/// without authorities is no fault before.
pub(crate) fn tls(roots: &Roots) -> Result<TlsConfig, String> {
    let Some(trusted) = trusted(roots)? else { return Ok(unverified()) };
    let trusted = trusted.iter().map(|certificate| Certificate::from_der(certificate).to_owned()).collect();
    let roots = RootCerts::Specific(Arc::new(trusted));
    Ok(TlsConfig::builder().unversioned_rustls_crypto_provider(provider()).root_certs(roots).build())
}

/// TLS that takes whoever answers for the server, for ureq.
pub(crate) fn unverified() -> TlsConfig {
    TlsConfig::builder().unversioned_rustls_crypto_provider(provider()).disable_verification(true).build()
}

/// ureq brings none by itself here.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// The same for who keeps connections of its own.
pub(crate) fn client(roots: &Roots) -> Result<Arc<ClientConfig>, String> {
    let provider = provider();
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| error.to_string())?;
    let builder = match trusted(roots)? {
        None => builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyServer(provider))),
        Some(trusted) => {
            let mut store = RootCertStore::empty();
            // One that rustls can't use is none that it would find.
            store.add_parsable_certificates(trusted);
            builder.with_root_certificates(store)
        }
    };
    Ok(Arc::new(builder.with_no_client_auth()))
}

/// The certificates of these roots; `None`: anything is trusted.
fn trusted(roots: &Roots) -> Result<Option<Vec<CertificateDer<'static>>>, String> {
    match roots {
        Roots::Unverified => Ok(None),
        Roots::System => readable(load_native_certs())
            .map_err(|reason| format!("the system has no certificate authorities{reason}; SSL_CERT_FILE names some")),
        Roots::File(path) => readable(load_certs_from_paths(Some(path), None))
            .map_err(|reason| format!("{}: no certificate in PEM form{reason}", path.display())),
    }
}

/// Those that could be read, if any: one bad file among a system's authorities must not turn all of them off.
fn readable(found: CertificateResult) -> Result<Option<Vec<CertificateDer<'static>>>, String> {
    if found.certs.is_empty() {
        return Err(found.errors.first().map(|error| format!(" ({error})")).unwrap_or_default());
    }
    Ok(Some(found.certs))
}

/// Takes whoever answers for the server; that it speaks TLS is all that it has to show.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::fs;

    /// Self-signed, made with `openssl req -x509 -newkey ed25519 -nodes -days 36500 -subj "/CN=test root"`.
    pub(crate) const CERTIFICATE: &str = "\
-----BEGIN CERTIFICATE-----
MIIBPjCB8aADAgECAhRwLEzdxa6VbO4RdrvUEp6nErDbrDAFBgMrZXAwFDESMBAG
A1UEAwwJdGVzdCByb290MCAXDTI2MTEyNTE0MjE1M1oYDzIxMjYxMTAxMTQyMTUz
WjAUMRIwEAYDVQQDDAl0ZXN0IHJvb3QwKjAFBgMrZXADIQCLGXcahN9TVlQpqb7G
owDBK0DFNVPTRhxucEmQYe6YIaNTMFEwHQYDVR0OBBYEFAjNdfkiAlFXppd2PmpM
EHp5VCWaMB8GA1UdIwQYMBaAFAjNdfkiAlFXppd2PmpMEHp5VCWaMA8GA1UdEwEB
/wQFMAMBAf8wBQYDK2VwA0EA5P1/LJUQi86Lu2D23gmgQ1Qd5CQyHYZh1JgpJIrM
BXp3CleYJfmQq2uEfPY+IQ/O08yaAMHqGzodApd3c8g+Dg==
-----END CERTIFICATE-----
";

    /// What `tls` makes of a file with this text: how many roots, or the error without the file's name.
    fn of_file(name: &str, text: &str) -> Result<usize, String> {
        let path = std::env::temp_dir().join(format!("kserve-agent-tls-{}-{name}", std::process::id()));
        fs::write(&path, text).unwrap();
        let result = tls(&Roots::File(path.clone()));
        fs::remove_file(&path).unwrap();
        match result.map_err(|error| error.replace(path.to_str().unwrap(), "FILE"))?.root_certs() {
            RootCerts::Specific(certificates) => Ok(certificates.len()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_files_certificates_are_the_only_roots() {
        assert_eq!(of_file("one", CERTIFICATE), Ok(1));
        let other_things = format!("a comment\n{CERTIFICATE}-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n");
        assert_eq!(of_file("more", &other_things), Ok(1));
    }

    #[test]
    fn a_file_without_a_certificate_is_an_error_that_names_it() {
        assert_eq!(of_file("none", "hello\n"), Err("FILE: no certificate in PEM form".to_owned()));
        let error = of_file("torn", &CERTIFICATE[..200]).unwrap_err();
        assert!(error.starts_with("FILE: no certificate in PEM form ("), "{error}");
    }

    #[test]
    fn a_file_that_is_not_there_is_an_error_that_says_so() {
        let error = tls(&Roots::File(PathBuf::from("/nowhere/ca.pem"))).unwrap_err();
        assert!(error.starts_with("/nowhere/ca.pem: ") && error.contains("No such file"), "{error}");
    }

    #[test]
    fn only_unverified_does_not_verify() {
        assert!(tls(&Roots::Unverified).unwrap().disable_verification());
        assert!(tls(&Roots::System).map_or(true, |config| !config.disable_verification()));
    }
}
