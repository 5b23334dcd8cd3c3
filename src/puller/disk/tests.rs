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
    let disk = Disk::at(&folder.0);
    disk.survey().unwrap();
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
    let disk = Disk::at(&folder.0);
    disk.survey().unwrap();
    pulled(&disk, &spec("s3://one"), "one");
    fs::rename(folder.0.join("m"), disk.aside("m", OLD)).unwrap();
    assert_eq!(disk.survey().unwrap()["m"], spec("s3://one").version());
    assert_eq!(hidden(&folder), 0);
}

#[test]
fn a_model_that_was_being_deleted_stays_deleted() {
    let folder = Folder::new("deleted");
    let disk = Disk::at(&folder.0);
    disk.survey().unwrap();
    pulled(&disk, &spec("s3://one"), "one");
    fs::rename(folder.0.join("m"), disk.aside("m", GONE)).unwrap();
    assert!(disk.survey().unwrap().is_empty());
    assert!(!folder.0.join("m").exists() && hidden(&folder) == 0);
}

#[test]
fn what_a_model_took_the_place_of_goes_though_nobody_came_to_delete_it() {
    let folder = Folder::new("exchanged");
    let disk = Disk::at(&folder.0);
    disk.survey().unwrap();
    pulled(&disk, &spec("s3://two"), "two");
    let left = disk.hidden("m", &spec("s3://two").version()).unwrap();
    fs::write(left.join("file"), "one").unwrap();
    assert_eq!(disk.survey().unwrap()["m"], spec("s3://two").version());
    assert_eq!(hidden(&folder), 0);
}

#[test]
fn a_model_that_brings_markers_of_its_own_has_only_the_agents() {
    let folder = Folder::new("forged");
    let disk = Disk::at(&folder.0);
    disk.survey().unwrap();
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
    let disk = Disk::at(&folder.0);
    disk.survey().unwrap();
    let (one, two) = (spec("s3://one").version(), spec("s3://two").version());
    disk.hidden("m", &one).unwrap();
    disk.hidden("m", &two).unwrap();
    disk.hidden("m.n", &two).unwrap();
    disk.clean("m", Some(&two)).unwrap();
    assert_eq!(hidden(&folder), 2);
    disk.sweep(|name, _| name == "m.n").unwrap();
    assert!(disk.hidden("m.n", &two).unwrap().exists() && hidden(&folder) == 1);
}

#[test]
fn a_model_whose_folder_was_deleted_does_not_come_back_empty() {
    let folder = Folder::new("swept");
    let disk = Disk::at(&folder.0);
    disk.survey().unwrap();
    let (one, two) = (spec("s3://one"), spec("s3://two"));
    pulled(&disk, &one, "one");
    disk.hidden("m", &two.version()).unwrap();
    disk.clean("m", None).unwrap();
    assert!(disk.place("m", &two).is_err());
    assert_eq!(disk.survey().unwrap()["m"], one.version());
    assert_eq!(fs::read_to_string(folder.0.join("m/file")).unwrap(), "one");
}

#[test]
fn what_cannot_be_deleted_is_in_nobodys_way_and_is_no_model() {
    let folder = Folder::new("stuck");
    let disk = Disk::at(&folder.0);
    disk.survey().unwrap();
    // As a folder is that another user has written into: root can delete all but what is mounted, so by its name.
    let stuck = |end: &str| disk.aside("m", end);
    fs::create_dir_all(stuck(OLD)).unwrap();
    let kept = File::create(stuck(OLD).join("kept")).unwrap();
    let flags = rustix::fs::IFlags::IMMUTABLE;
    if rustix::fs::ioctl_setflags(&kept, flags).is_err() {
        // Only root may, and not on every file system.
        return;
    }
    for uri in ["s3://one", "s3://two", "s3://three"] {
        pulled(&disk, &spec(uri), uri);
        assert_eq!(disk.survey().unwrap()["m"], spec(uri).version());
    }
    assert!(stuck(OLD).join("kept").exists() && !stuck("old1").exists());
    disk.delete("m").unwrap();
    assert!(disk.survey().unwrap().is_empty());
    rustix::fs::ioctl_setflags(&kept, rustix::fs::IFlags::empty()).unwrap();
    disk.survey().unwrap();
    assert!(!stuck(OLD).exists());
}
