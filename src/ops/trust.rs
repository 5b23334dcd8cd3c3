//! What a server's certificate is verified against, read again when the file of it changes (SPEC L7).
//!
//! Authorities are rotated while a pod runs (cert-manager, trust-manager, OpenShift's service CA), and the file may appear
//! after the start. It is looked at before each handshake, which costs one system call. A file that is gone, or that holds
//! no certificate, changes nothing: it may be about to be written, and the system's authorities are no substitute for one
//! that an operator has chosen.
//!
//! Not here: TLS itself ([`super::tls`]).

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::ClientConfig;

use super::reload::Stamp;
use super::tls::{Roots, client};

/// Roots of trust that follow their file.
#[derive(Debug)]
pub(crate) struct Trust {
    /// What it is for, as the log says it.
    name: String,
    kind: Kind,
    loaded: Mutex<Option<Loaded>>,
}

#[derive(Debug)]
enum Kind {
    /// This file, and the system's roots until it exists.
    FileOrSystem(PathBuf),
    Unverified,
}

/// The configuration that was made last.
#[derive(Debug)]
struct Loaded {
    /// Of the file that it was made of; `None`: it was made of something else.
    file: Option<Stamp>,
    /// Of the file of the system's roots.
    system: Option<Stamp>,
    config: Arc<ClientConfig>,
}

impl Trust {
    /// Trusts the certificates of this file, or the system's until it exists.
    pub(crate) fn file_or_system(name: &str, file: PathBuf) -> Self {
        Self { name: name.to_owned(), kind: Kind::FileOrSystem(file), loaded: Mutex::new(None) }
    }

    /// Takes whoever answers for the server.
    pub(crate) fn unverified(name: &str) -> Self {
        Self { name: name.to_owned(), kind: Kind::Unverified, loaded: Mutex::new(None) }
    }

    /// Returns TLS with the roots of this moment.
    ///
    /// # Errors
    /// When there are none, and were none before.
    pub(crate) fn client(&self) -> Result<Arc<ClientConfig>, String> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let made = match &self.kind {
            Kind::FileOrSystem(path) => self.renewed(path, loaded.as_ref()),
            Kind::Unverified if loaded.is_none() => load(&Roots::Unverified, None, None).map(Some),
            Kind::Unverified => Ok(None),
        };
        match (made, &*loaded) {
            (Ok(Some(new)), _) => Ok(Arc::clone(&loaded.insert(new).config)),
            (Ok(None), Some(old)) => Ok(Arc::clone(&old.config)),
            (Err(why), Some(old)) => {
                log::warn!("{}: {why}; the certificates that were read before are still used", self.name);
                Ok(Arc::clone(&old.config))
            }
            (Err(why), None) => Err(why),
            (Ok(None), None) => Err("no certificates".to_owned()),
        }
    }

    /// Reads the file, or the system's roots, if that would make a difference.
    fn renewed(&self, path: &Path, loaded: Option<&Loaded>) -> Result<Option<Loaded>, String> {
        let stamp = Stamp::of(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let system = system_stamp();
        match (stamp, loaded) {
            (Some(_), Some(old)) if old.file == stamp => Ok(None),
            (Some(_), _) => {
                let made = load(&Roots::File(path.to_path_buf()), stamp, None)?;
                log::info!("{} is verified against {}", self.name, path.display());
                Ok(Some(made))
            }
            (None, Some(old)) if old.file.is_some() || old.system == system => Ok(None),
            (None, _) => load(&Roots::System, None, system).map(Some),
        }
    }
}

/// Stamp of the file that `SSL_CERT_FILE` names.
fn system_stamp() -> Option<Stamp> {
    let path = PathBuf::from(std::env::var_os("SSL_CERT_FILE")?);
    Stamp::of(&path).ok().flatten()
}

fn load(roots: &Roots, file: Option<Stamp>, system: Option<Stamp>) -> Result<Loaded, String> {
    client(roots).map(|config| Loaded { file, system, config })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::ops::tls::tests::CERTIFICATE;

    #[test]
    fn a_file_is_read_when_it_appears_and_when_it_changes_and_kept_when_it_is_damaged_or_gone() {
        let path = std::env::temp_dir().join(format!("kserve-agent-trust-{}", std::process::id()));
        fs::write(&path, "not yet").unwrap();
        let trust = Trust::file_or_system("a sink", path.clone());
        assert!(trust.client().unwrap_err().contains("no certificate in PEM form"));
        fs::write(&path, CERTIFICATE).unwrap();
        let first = trust.client().unwrap();
        assert!(Arc::ptr_eq(&first, &trust.client().unwrap()), "it is read once");
        fs::write(&path, format!("a comment\n{CERTIFICATE}")).unwrap();
        let second = trust.client().unwrap();
        assert!(!Arc::ptr_eq(&first, &second));
        fs::write(&path, "torn").unwrap();
        assert!(Arc::ptr_eq(&second, &trust.client().unwrap()));
        fs::remove_file(&path).unwrap();
        assert!(Arc::ptr_eq(&second, &trust.client().unwrap()));
    }

    #[test]
    fn without_verification_there_is_nothing_to_read() {
        let trust = Trust::unverified("a sink");
        assert!(Arc::ptr_eq(&trust.client().unwrap(), &trust.client().unwrap()));
    }
}
