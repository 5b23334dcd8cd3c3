//! The models' folder (SPEC M2 to M4).
//!
//! ```text
//!   <model-dir>/<name>/…                          a model, whole
//!   <model-dir>/<name>/SUCCESS.<version>          its marker, with the specification
//!   <model-dir>/.kserve-agent/<name>.<version>/   a model on its way
//!   <model-dir>/.kserve-agent/<name>.old/         a model that has just been replaced
//!   <model-dir>/.kserve-agent/<name>.new           there from before a version has its place until the server has loaded it
//!   <model-dir>/.kserve-agent/<name>.gone/        a model that has just been removed
//! ```
//!
//! What is to go and can't be deleted (a model server that runs as another user may have written into a model) is said, is
//! tried again at the next start, and is in nobody's way: the next of its kind is called `old1`.
//!
//! A model gets its marker while it is hidden, and its place by one rename, so that at any moment either the old one is
//! there as a whole, or the new one. What is hidden is of no meaning but to a download that goes on.
//!
//! Architecture Invariant: whoever reads `<model-dir>/<name>` sees files of one version only.
//!
//! Not here: what is downloaded ([`super::source`]).

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with, syncfs};

use super::list::{Spec, Version};

/// The folder.
#[derive(Debug, Clone)]
pub(super) struct Disk {
    models: PathBuf,
}

const HIDDEN: &str = ".kserve-agent";
const MARKER: &str = "SUCCESS.";
const OLD: &str = "old";
const GONE: &str = "gone";
const NEW: &str = "new";
/// Versions of a model that could not be deleted, beyond which another one is not replaced.
const LEFTOVERS: usize = 100;

impl Disk {
    /// The folder, which is made by [`Self::survey`].
    pub(super) fn at(models: &Path) -> Self {
        Self { models: models.to_owned() }
    }

    /// The models that are there as a whole, after what a crash has left was set right. The folder is made if it is not there.
    ///
    /// # Errors
    /// When it can't be written.
    pub(super) fn survey(&self) -> io::Result<BTreeMap<String, Version>> {
        fs::create_dir_all(self.models.join(HIDDEN))?;
        self.recover()?;
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(&self.models)? {
            let entry = entry?;
            // What is not UTF-8 is none of the agent's.
            let Ok(name) = entry.file_name().into_string() else { continue };
            if name.starts_with('.') || !entry.file_type()?.is_dir() {
                continue;
            }
            // A folder that may not be read, as a volume's lost+found, is no model of the agent's.
            if let Some(version) = version_in(&entry.path()).ok().flatten() {
                // What it took the place of, when a crash came in between.
                discard(&self.hidden_path(&name, &version));
                found.insert(name, version);
            }
        }
        Ok(found)
    }

    /// Puts a model back that had made room for one that never came, and deletes those that were replaced or removed.
    fn recover(&self) -> io::Result<()> {
        for entry in fs::read_dir(self.models.join(HIDDEN))? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()?.rsplit_once('.'));
            let Some((name, end)) = name else { continue };
            let (place, end) = (self.models.join(name), end.trim_end_matches(|digit: char| digit.is_ascii_digit()));
            match end {
                OLD if !place.exists() && version_in(&path).ok().flatten().is_some() => fs::rename(&path, &place)?,
                OLD | GONE => discard(&path),
                NEW if !place.exists() => discard(&path),
                _ => {}
            }
        }
        Ok(())
    }

    /// The hidden folder of a model on its way; what an earlier attempt left is in it.
    ///
    /// # Errors
    /// When it can't be made.
    pub(super) fn hidden(&self, name: &str, version: &Version) -> io::Result<PathBuf> {
        let path = self.hidden_path(name, version);
        fs::create_dir_all(&path)?;
        // The model server may run as any user.
        fs::set_permissions(&path, Permissions::from_mode(0o755))?;
        Ok(path)
    }

    /// Deletes what is hidden of models that nobody wants.
    ///
    /// # Errors
    /// When it can't be deleted.
    pub(super) fn sweep(&self, is_wanted: impl Fn(&str, &Version) -> bool) -> io::Result<()> {
        for entry in fs::read_dir(self.models.join(HIDDEN))? {
            let entry = entry?;
            let file_name = entry.file_name();
            let model = file_name.to_str().and_then(|file| file.rsplit_once('.'));
            let model = model.and_then(|(name, hex)| Some((name, Version::of_hex(hex)?)));
            if model.is_some_and(|(name, version)| !is_wanted(name, &version)) {
                remove(&entry.path())?;
            }
        }
        Ok(())
    }

    /// Deletes what is hidden of other versions of a model, or of all.
    ///
    /// # Errors
    /// When it can't be deleted.
    pub(super) fn clean(&self, name: &str, kept: Option<&Version>) -> io::Result<()> {
        self.sweep(|other, version| other != name || Some(version) == kept)
    }

    /// Gives a model that is whole its marker and its place; the one before it is gone then.
    ///
    /// # Errors
    /// When the disk fails; then the one before it is still there.
    pub(super) fn place(&self, name: &str, spec: &Spec) -> io::Result<()> {
        let version = spec.version();
        // It is there: one that is not has been deleted, and must not come back empty.
        let hidden = self.hidden_path(name, &version);
        // All of it, whoever wrote it: the marker must not outlive a crash that the files do not.
        syncfs(File::open(&hidden)?)?;
        write_marker(&hidden, spec, &version)?;
        super::injected::at("marked");
        File::create(self.aside(name, NEW))?;
        let (place, old) = (self.models.join(name), self.emptied(name, OLD)?);
        if !place.exists() {
            fs::rename(&hidden, &place)?;
        } else if exchange(&hidden, &place).is_ok() {
            super::injected::at("exchanged");
            // What was there is in the hidden folder of the new one now.
            fs::rename(&hidden, &old)?;
        } else {
            // A file system that can't exchange: `recover` ends what is cut here.
            fs::rename(&place, &old)?;
            super::injected::at("displaced");
            fs::rename(&hidden, &place)?;
        }
        sync(&self.models)?;
        super::injected::at("placed");
        discard(&old);
        Ok(())
    }

    /// Deletes a model.
    ///
    /// # Errors
    /// When it can't be deleted.
    pub(super) fn delete(&self, name: &str) -> io::Result<()> {
        let place = self.models.join(name);
        if place.exists() {
            // Gone at once and as a whole for who looks at it, whatever happens to the rest.
            let gone = self.emptied(name, GONE)?;
            fs::rename(&place, &gone)?;
            sync(&self.models)?;
            super::injected::at("removed");
            discard(&gone);
        }
        self.set_loaded(name)?;
        self.clean(name, None)
    }

    /// Whether the server may not have loaded a model in the version that is there.
    pub(super) fn is_new(&self, name: &str) -> bool {
        self.aside(name, NEW).exists()
    }

    /// Says that the server has, or that there is none.
    ///
    /// # Errors
    /// When that can't be kept.
    pub(super) fn set_loaded(&self, name: &str) -> io::Result<()> {
        remove(&self.aside(name, NEW))
    }

    fn hidden_path(&self, name: &str, version: &Version) -> PathBuf {
        self.aside(name, version.hex())
    }

    /// A place aside, with nothing there.
    fn emptied(&self, name: &str, end: &str) -> io::Result<PathBuf> {
        let path = self.aside(name, end);
        let failure = match remove(&path) {
            Ok(()) => return Ok(path),
            Err(failure) => failure,
        };
        // As many as there may be of versions that nobody can delete.
        let mut others = (1..LEFTOVERS).map(|number| self.aside(name, &format!("{end}{number}")));
        others.find(|path| !path.exists()).ok_or(failure)
    }

    /// A place for what belongs to a model and is not it.
    fn aside(&self, name: &str, end: &str) -> PathBuf {
        self.models.join(HIDDEN).join(format!("{name}.{end}"))
    }
}

/// Lets two folders change places at once.
fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    if super::injected::lacks("exchange") {
        return Err(ErrorKind::Unsupported.into());
    }
    Ok(renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)?)
}

/// The version whose marker lies in a folder. Several markers are none: nobody knows what the files are.
fn version_in(folder: &Path) -> io::Result<Option<Version>> {
    let mut versions = markers(folder)?;
    Ok(versions.pop().filter(|_| versions.is_empty()))
}

fn markers(folder: &Path) -> io::Result<Vec<Version>> {
    let mut versions = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        versions.extend(name.to_str().and_then(|name| Version::of_hex(name.strip_prefix(MARKER)?)));
    }
    Ok(versions)
}

fn marker(folder: &Path, version: &Version) -> PathBuf {
    folder.join(format!("{MARKER}{}", version.hex()))
}

fn write_marker(folder: &Path, spec: &Spec, version: &Version) -> io::Result<()> {
    // A model may bring files that look like one.
    for other in markers(folder)? {
        remove(&marker(folder, &other))?;
    }
    let mut file = File::create(marker(folder, version))?;
    file.write_all(spec.json().as_bytes())?;
    file.sync_all()?;
    sync(folder)
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Deletes what is no model any more, or says why it stays. Its marker goes first, so that what is left of it is none.
fn discard(path: &Path) {
    let unmark = || -> io::Result<()> {
        let markers = markers(path)?;
        markers.iter().try_for_each(|version| fs::remove_file(marker(path, version)))
    };
    // Whatever that fails of, the next fails of as well.
    let _ = unmark();
    if let Err(error) = remove(path) {
        log::warn!("--model-dir: {} can't be deleted: {error}; it stays until the next start", path.display());
    }
}

/// Deletes a folder, if it is there.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotADirectory => fs::remove_file(path),
        result => result,
    }
}

#[cfg(test)]
mod tests;
