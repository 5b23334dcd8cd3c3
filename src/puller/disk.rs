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

impl Disk {
    /// The folder, made if it is not there.
    ///
    /// # Errors
    /// When it can't be written.
    pub(super) fn open(models: &Path) -> io::Result<Self> {
        fs::create_dir_all(models.join(HIDDEN))?;
        Ok(Self { models: models.to_owned() })
    }

    /// The models that are there as a whole, after what a crash has left was set right.
    ///
    /// # Errors
    /// When the folder can't be read.
    pub(super) fn survey(&self) -> io::Result<BTreeMap<String, Version>> {
        self.recover()?;
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(&self.models)? {
            let entry = entry?;
            // What is not UTF-8 is none of the agent's.
            let Ok(name) = entry.file_name().into_string() else { continue };
            if name.starts_with('.') || !entry.file_type()?.is_dir() {
                continue;
            }
            if let Some(version) = version_in(&entry.path())? {
                // What it took the place of, when a crash came in between.
                remove(&self.hidden_path(&name, &version))?;
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
            match name.map(|(name, end)| (self.models.join(name), end)) {
                Some((place, OLD)) if !place.exists() && version_in(&path)?.is_some() => fs::rename(&path, &place)?,
                Some((_, OLD | GONE)) => remove(&path)?,
                Some((place, NEW)) if !place.exists() => remove(&path)?,
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
        let hidden = self.hidden(name, &version)?;
        // All of it, whoever wrote it: the marker must not outlive a crash that the files do not.
        syncfs(File::open(&hidden)?)?;
        write_marker(&hidden, spec, &version)?;
        super::injected::at("marked");
        File::create(self.aside(name, NEW))?;
        let place = self.models.join(name);
        if !place.exists() {
            fs::rename(&hidden, &place)?;
        } else if exchange(&hidden, &place).is_ok() {
            super::injected::at("exchanged");
            // What was there is in the hidden folder of the new one now.
            fs::rename(&hidden, self.emptied(name, OLD)?)?;
        } else {
            // A file system that can't exchange: `recover` ends what is cut here.
            fs::rename(&place, self.emptied(name, OLD)?)?;
            super::injected::at("displaced");
            fs::rename(&hidden, &place)?;
        }
        sync(&self.models)?;
        super::injected::at("placed");
        remove(&self.aside(name, OLD))
    }

    /// Deletes a model.
    ///
    /// # Errors
    /// When it can't be deleted.
    pub(super) fn delete(&self, name: &str) -> io::Result<()> {
        let place = self.models.join(name);
        if place.exists() {
            // Gone at once and as a whole for who looks at it, whatever happens to the rest.
            fs::rename(&place, self.emptied(name, GONE)?)?;
            sync(&self.models)?;
            super::injected::at("removed");
        }
        self.set_loaded(name)?;
        remove(&self.aside(name, GONE))?;
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
        remove(&path)?;
        Ok(path)
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

/// Deletes a folder, if it is there.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotADirectory => fs::remove_file(path),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::super::list::List;
    use super::*;

    fn spec(uri: &str) -> Spec {
        let json = format!(r#"[{{"modelName":"m","modelSpec":{{"storageUri":"{uri}"}}}}]"#);
        List::parse(json.as_bytes()).unwrap().models.remove("m").unwrap()
    }

    /// A folder of its own for each test, deleted at its end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("kserve-agent-disk-{}-{name}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            Self(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn pulled(disk: &Disk, spec: &Spec, text: &str) {
        let hidden = disk.hidden("m", &spec.version()).unwrap();
        fs::write(hidden.join("file"), text).unwrap();
        disk.place("m", spec).unwrap();
        assert!(disk.is_new("m"));
        disk.set_loaded("m").unwrap();
    }

    fn hidden(folder: &Folder) -> usize {
        fs::read_dir(folder.0.join(HIDDEN)).unwrap().count()
    }

    #[test]
    fn a_model_comes_is_replaced_and_goes() {
        let folder = Folder::new("life");
        let disk = Disk::open(&folder.0).unwrap();
        assert!(disk.survey().unwrap().is_empty());
        for uri in ["s3://one", "s3://two"] {
            pulled(&disk, &spec(uri), uri);
            assert_eq!(fs::read_to_string(folder.0.join("m/file")).unwrap(), uri);
            assert_eq!(disk.survey().unwrap()["m"], spec(uri).version());
            assert_eq!(hidden(&folder), 0);
        }
        let marker = marker(&folder.0.join("m"), &spec("s3://two").version());
        assert_eq!(fs::read_to_string(marker).unwrap(), spec("s3://two").json());
        disk.delete("m").unwrap();
        disk.delete("m").unwrap();
        assert!(disk.survey().unwrap().is_empty() && !folder.0.join("m").exists() && hidden(&folder) == 0);
    }

    #[test]
    fn a_model_that_made_room_for_one_that_never_came_is_put_back() {
        let folder = Folder::new("back");
        let disk = Disk::open(&folder.0).unwrap();
        pulled(&disk, &spec("s3://one"), "one");
        fs::rename(folder.0.join("m"), disk.aside("m", OLD)).unwrap();
        assert_eq!(disk.survey().unwrap()["m"], spec("s3://one").version());
        assert_eq!(hidden(&folder), 0);
    }

    #[test]
    fn a_model_that_was_being_deleted_stays_deleted() {
        let folder = Folder::new("deleted");
        let disk = Disk::open(&folder.0).unwrap();
        pulled(&disk, &spec("s3://one"), "one");
        fs::rename(folder.0.join("m"), disk.aside("m", GONE)).unwrap();
        assert!(disk.survey().unwrap().is_empty());
        assert!(!folder.0.join("m").exists() && hidden(&folder) == 0);
    }

    #[test]
    fn what_a_model_took_the_place_of_goes_though_nobody_came_to_delete_it() {
        let folder = Folder::new("exchanged");
        let disk = Disk::open(&folder.0).unwrap();
        pulled(&disk, &spec("s3://two"), "two");
        let left = disk.hidden("m", &spec("s3://two").version()).unwrap();
        fs::write(left.join("file"), "one").unwrap();
        assert_eq!(disk.survey().unwrap()["m"], spec("s3://two").version());
        assert_eq!(hidden(&folder), 0);
    }

    #[test]
    fn a_model_that_brings_markers_of_its_own_has_only_the_agents() {
        let folder = Folder::new("forged");
        let disk = Disk::open(&folder.0).unwrap();
        let one = spec("s3://one");
        let hidden = disk.hidden("m", &one.version()).unwrap();
        for uri in ["s3://two", "s3://three"] {
            fs::write(marker(&hidden, &spec(uri).version()), "forged").unwrap();
        }
        fs::create_dir(marker(&hidden, &spec("s3://four").version())).unwrap();
        disk.place("m", &one).unwrap();
        assert_eq!(disk.survey().unwrap()["m"], one.version());
        assert!(disk.is_new("m"), "the server was not told");
        disk.delete("m").unwrap();
        assert!(!disk.is_new("m"));
    }

    #[test]
    fn what_is_hidden_goes_unless_it_is_wanted() {
        let folder = Folder::new("sweep");
        let disk = Disk::open(&folder.0).unwrap();
        let (one, two) = (spec("s3://one").version(), spec("s3://two").version());
        disk.hidden("m", &one).unwrap();
        disk.hidden("m", &two).unwrap();
        disk.hidden("m.n", &two).unwrap();
        disk.clean("m", Some(&two)).unwrap();
        assert_eq!(hidden(&folder), 2);
        disk.sweep(|name, _| name == "m.n").unwrap();
        assert!(disk.hidden("m.n", &two).unwrap().exists() && hidden(&folder) == 1);
    }
}
