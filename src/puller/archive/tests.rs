//! Archives made here byte by byte; those that Python's libraries make are in `tests/puller`.

use std::convert::Infallible;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crossbeam_channel::Sender;
use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder};

use super::*;
use crate::puller::source::Stop;

/// A folder with nothing but `models` in it, where archives are unpacked.
struct Scene {
    root: PathBuf,
    stop: Stop,
    _end: Sender<Infallible>,
}

impl Scene {
    fn new(name: &str) -> Self {
        let root = std::env::temp_dir().join(format!("kserve-agent-archive-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(root.join("models")).unwrap();
        let (end, stop) = crossbeam_channel::bounded(0);
        Self { root, stop: Stop::new(stop), _end: end }
    }

    fn folder(&self) -> PathBuf {
        self.root.join("models")
    }

    /// What comes of an archive with these bytes.
    fn unpack(&self, bytes: &[u8]) -> Result<(), Failure> {
        let folder = self.folder();
        let mut tree = Tree::new(&folder, bytes.len() as u64, &self.stop);
        let kind = Archive::of(bytes).expect("an archive");
        if kind.is_stream() {
            return kind.unpack(Packed::Stream(&mut &bytes[..]), &mut tree);
        }
        let path = folder.join(".kserve-agent-part");
        fs::write(&path, bytes).unwrap();
        let result = kind.unpack(Packed::File(&File::open(&path).unwrap()), &mut tree);
        fs::remove_file(path).unwrap();
        result
    }

    fn reason(&self, bytes: &[u8]) -> String {
        self.unpack(bytes).unwrap_err().reason
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.folder().join(path)).unwrap()
    }

    fn mode(&self, path: &str) -> u32 {
        fs::metadata(self.folder().join(path)).unwrap().permissions().mode() & 0o7777
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

#[derive(Clone)]
struct Item {
    kind: u8,
    name: Vec<u8>,
    target: Vec<u8>,
    content: Vec<u8>,
    mode: u32,
}

fn item(kind: u8, name: &str, rest: &str) -> Item {
    let (target, content) = if b"12".contains(&kind) { (rest, "") } else { ("", rest) };
    Item { kind, name: name.into(), target: target.into(), content: content.into(), mode: 0o644 }
}

/// The header of an entry, whose name and target may be anything.
fn header(item: &Item, size: u64) -> Vec<u8> {
    let mut header = ::tar::Header::new_gnu();
    header.set_entry_type(::tar::EntryType::new(item.kind));
    header.set_size(size);
    header.set_mode(item.mode);
    let bytes = header.as_mut_bytes();
    bytes[..item.name.len()].copy_from_slice(&item.name);
    bytes[157..157 + item.target.len()].copy_from_slice(&item.target);
    header.set_cksum();
    header.as_bytes().to_vec()
}

fn entry(item: &Item) -> Vec<u8> {
    let mut bytes = header(item, item.content.len() as u64);
    bytes.extend(&item.content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn tar(items: &[Item]) -> Vec<u8> {
    let mut bytes: Vec<u8> = items.iter().flat_map(entry).collect();
    bytes.extend([0; 1024]);
    bytes
}

fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// With every entry deflated, as Unix makes it.
fn zip(items: &[Item]) -> Vec<u8> {
    let (mut bytes, mut directory) = (Vec::new(), Vec::new());
    for item in items {
        let (kind, content) = match item.kind {
            b'2' => (0o120_000, &item.target),
            b'3' => (0o020_000, &item.content),
            b'5' => (0o040_000, &item.content),
            _ => (0o100_000, &item.content),
        };
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(content).unwrap();
        let packed = encoder.finish().unwrap();
        let mut shared = [20_u16, 0, 8, 0, 0].map(u16::to_le_bytes).concat();
        shared.extend(crc32fast::hash(content).to_le_bytes());
        shared.extend(u32::try_from(packed.len()).unwrap().to_le_bytes());
        shared.extend(u32::try_from(content.len()).unwrap().to_le_bytes());
        shared.extend(u16::try_from(item.name.len()).unwrap().to_le_bytes());
        directory.extend(b"PK\x01\x02\x14\x03");
        directory.extend(&shared);
        directory.extend([0; 8]);
        directory.extend(((kind | item.mode) << 16).to_le_bytes());
        directory.extend(u32::try_from(bytes.len()).unwrap().to_le_bytes());
        // The extra field's length stands in both, in front of what only the directory has.
        bytes.extend(b"PK\x03\x04");
        bytes.extend(&shared);
        bytes.extend([0; 2]);
        bytes.extend(&item.name);
        bytes.extend(packed);
        directory.extend(&item.name);
    }
    let [at, length] = [&bytes, &directory].map(|part| u32::try_from(part.len()).unwrap());
    // One that has more says it modulo 65536, and is refused for that.
    let count = u16::try_from(items.len() % 65_536).unwrap();
    bytes.extend(directory);
    bytes.extend(b"PK\x05\x06\0\0\0\0");
    bytes.extend([count, count].map(u16::to_le_bytes).concat());
    bytes.extend([length, at].map(u32::to_le_bytes).concat());
    bytes.extend([0, 0]);
    bytes
}

#[test]
fn each_kind_of_archive_is_unpacked() {
    let items = [
        item(b'5', "m/", ""),
        item(b'0', "m/model.bin", "weights"),
        item(b'0', "deep/er/x", "x"),
        item(b'2', "m/link", "../deep/er/x"),
    ];
    for (name, bytes) in [("tar", tar(&items)), ("tgz", gz(&tar(&items))), ("zip", zip(&items))] {
        let scene = Scene::new(name);
        scene.unpack(&bytes).unwrap();
        assert_eq!((scene.read("m/model.bin"), scene.read("deep/er/x")), ("weights".to_owned(), "x".to_owned()));
        assert_eq!(scene.read("m/link"), "x");
    }
}

#[test]
fn any_user_can_read_what_was_unpacked_and_nobody_gets_more() {
    for archive in [tar, zip] {
        let scene = Scene::new("modes");
        let with = |name: &str, mode| Item { mode, ..item(b'0', name, "") };
        let items = [
            with("secret", 0o600),
            with("run", 0o4755),
            with("none", 0),
            Item { mode: 0o1777, ..item(b'5', "d/", "") },
        ];
        scene.unpack(&archive(&items)).unwrap();
        let modes = ["secret", "run", "none", "d"].map(|name| scene.mode(name));
        assert_eq!(modes, [0o644, 0o755, 0o644, 0o755]);
    }
}

#[test]
fn an_entry_that_leads_outside_is_named() {
    for (items, reason) in [
        (vec![item(b'0', "../x", "")], r#"the entry "../x": the name leads out of the folder"#),
        (vec![item(b'0', "/x", "")], r#"the entry "/x": the name is absolute"#),
        (vec![item(b'0', "a\nb", "")], r#"the entry "a\nb": the name holds a control character"#),
        (vec![item(b'2', "l", "/etc")], r#"the entry "l": the link's target "/etc" is absolute"#),
        (vec![item(b'2', "l", "..")], r#"the entry "l": the link's target ".." leads out of the folder"#),
        (vec![item(b'2', "l", "d"), item(b'0', "l/x", "")], r#"the entry "l/x": it is below a file or a link"#),
        (vec![item(b'2', "l", "d"), item(b'5', "l", "")], r#"the entry "l": it is below a file or a link"#),
        (vec![item(b'0', "f", ""), item(b'0', "f/x", "")], r#"the entry "f/x": it is below a file or a link"#),
        (vec![item(b'5', "d/", ""), item(b'0', "d", "")], r#"the entry "d": it is a folder already"#),
    ] {
        assert_eq!(Scene::new("outside").reason(&tar(&items)), reason);
        assert_eq!(Scene::new("outside").reason(&zip(&items)), reason.replace("\"d/\"", "\"d\""));
    }
    let invalid = Item { name: b"a\xff".to_vec(), ..item(b'0', "", "") };
    assert_eq!(Scene::new("outside").reason(&tar(&[invalid])), r#"the entry "a\xff": the name is not UTF-8"#);
}

#[test]
fn what_is_no_file_folder_or_link_is_refused() {
    for (kind, reason) in
        [(b'3', "it is a device"), (b'4', "it is a device"), (b'6', "it is a named pipe"), (b'V', "its type is 'V'")]
    {
        assert_eq!(Scene::new("device").reason(&tar(&[item(kind, "x", "")])), format!("the entry \"x\": {reason}"));
    }
    assert_eq!(
        Scene::new("device").reason(&zip(&[item(b'3', "x", "")])),
        "the entry \"x\": it is no file, folder or link"
    );
}

#[test]
fn a_hard_link_is_another_name_of_a_file_before_it() {
    let scene = Scene::new("hard");
    scene.unpack(&tar(&[item(b'0', "d/a", "x"), item(b'1', "b", "./d/a")])).unwrap();
    assert_eq!(scene.read("b"), "x");
    for target in ["later", "../x", "/etc/passwd", "l", "d"] {
        let items = [item(b'2', "l", "a"), item(b'0', "d/a", ""), item(b'1', "b", target), item(b'0', "later", "")];
        let reason = Scene::new("hard-bad").reason(&tar(&items));
        assert!(reason.starts_with(&format!("the entry \"b\": the link's target {target:?} ")), "{reason}");
    }
}

#[test]
fn a_later_entry_takes_the_place_of_an_earlier_one_and_not_of_what_that_points_to() {
    for archive in [tar, zip] {
        let scene = Scene::new("later");
        let items = [item(b'0', "f", "old"), item(b'2', "l", "f"), item(b'0', "l", "new"), item(b'0', "L", "other")];
        scene.unpack(&archive(&items)).unwrap();
        assert_eq!(["f", "l", "L"].map(|name| scene.read(name)), ["old", "new", "other"]);
    }
}

#[test]
fn more_than_is_allowed_is_refused_before_it_is_written() {
    let scene = Scene::new("bomb");
    let bomb = Item { content: vec![0; 20_000_000], ..item(b'0', "zeros", "") };
    let small = item(b'0', "small", "x");
    for bytes in [zip(&[small.clone(), bomb.clone()]), gz(&tar(&[small, bomb]))] {
        assert!(bytes.len() < 20_000, "{}", bytes.len());
        let reason = scene.reason(&bytes);
        assert!(
            reason.contains("unpacks to more than") && reason.contains("1000 times its size and 100 GiB"),
            "{reason}"
        );
        assert!(!scene.folder().join("zeros").exists());
    }
    let huge = header(&item(b'0', "huge", ""), 101 << 30);
    let mut bytes = vec![];
    bytes.extend(entry(&item(b'0', "padding", &"x".repeat(200_000_000 / 1000))));
    bytes.extend(huge);
    assert!(scene.reason(&bytes).starts_with("the entry \"huge\": the archive unpacks to more than "));
}

#[test]
fn the_number_of_entries_is_bounded() {
    // All of the same name, so that the disk has little to do.
    let many = entry(&item(b'5', "d/", "")).repeat(100_001);
    assert_eq!(Scene::new("many").reason(&gz(&many)), "the entry \"d/\": the archive has more than 100000 entries");
    let zip = zip(&vec![item(b'5', "d/", ""); 100_001]);
    assert_eq!(Scene::new("many").reason(&zip), "the archive has more than 100000 entries");
}

#[test]
fn headers_that_would_fill_the_memory_are_not_read() {
    for kind in [b'L', b'K', b'x'] {
        let mut bytes = header(&item(kind, "././@LongLink", ""), 2 << 30);
        bytes.extend(vec![b'a'; 4 << 20]);
        let reason = Scene::new("headers").reason(&gz(&bytes));
        assert_eq!(reason, "the archive can't be read: headers of over 1048576 bytes");
    }
}

#[test]
fn an_archive_that_is_cut_anywhere_is_refused() {
    let items = [item(b'0', "a", "some text"), item(b'0', "b", "more text")];
    for bytes in [tar(&items), gz(&tar(&items)), zip(&items)] {
        // Of a tar the second of its two last blocks may be missing, as for tar.
        let ends = if bytes.starts_with(b"a") { 0..bytes.len() - 1023 } else { 0..bytes.len() };
        for end in ends.filter(|end| Archive::of(&bytes[..*end]).is_some()) {
            let failure = Scene::new("cut").unpack(&bytes[..end]);
            assert!(failure.is_err(), "{end} of {}", bytes.len());
        }
    }
}

#[test]
fn a_byte_that_flipped_is_noticed() {
    let items = [item(b'0', "a", &"some text ".repeat(100))];
    let bytes = zip(&items);
    let mut flipped = bytes.clone();
    flipped[40] ^= 1;
    assert!(Scene::new("flip").unpack(&flipped).is_err());
    let mut flipped = gz(&tar(&items));
    let at = flipped.len() - 6;
    flipped[at] ^= 1;
    assert!(Scene::new("flip").reason(&flipped).starts_with("the archive can't be read: corrupt gzip"));
}

#[test]
fn an_archive_that_nobody_wants_any_more_is_not_unpacked_on() {
    let mut scene = Scene::new("stop");
    let (end, stop) = crossbeam_channel::bounded(0);
    scene.stop = Stop::new(stop);
    drop(end);
    assert_eq!(scene.reason(&tar(&[item(b'0', "a", "")])), "the entry \"a\": no longer wanted");
}

/// Whatever names and links an archive has, what is outside of the folder stays as it was, and no link inside leads out.
#[test]
fn random_entries_never_write_outside_of_the_folder() {
    let mut random = Random(0x5eed);
    for round in 0..300 {
        let scene = Scene::new(&format!("random-{}", round % 2));
        fs::write(scene.root.join("outside"), "untouched").unwrap();
        let items: Vec<Item> = (0..random.below(24) + 1).map(|_| random.item()).collect();
        let archive = if random.below(2) == 0 { tar(&items) } else { zip(&items) };
        // The first entry that is refused ends it; each is tried alone too, on top of what is there.
        let _ = scene.unpack(&archive);
        for one in &items {
            let _ = scene.unpack(&tar(std::slice::from_ref(one)));
        }
        assert_eq!(fs::read_to_string(scene.root.join("outside")).unwrap(), "untouched");
        let mut names: Vec<_> = fs::read_dir(&scene.root).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["models", "outside"], "round {round}");
        stays_inside(&scene.folder(), &scene.folder().canonicalize().unwrap());
    }
}

fn stays_inside(folder: &Path, root: &Path) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let found = fs::symlink_metadata(&path).unwrap();
        if found.is_symlink() {
            // A link to nothing, or to itself, leads nowhere.
            let end = path.canonicalize();
            assert!(end.as_ref().map_or(true, |end| end.starts_with(root)), "{} leads to {end:?}", path.display());
        } else if found.is_dir() {
            stays_inside(&path, root);
        }
    }
}

/// xorshift64.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0).unwrap() % end
    }

    fn path(&mut self) -> String {
        // Few, so that one entry is often in, at or behind another.
        const SEGMENTS: [&str; 6] = ["a", "a", "b", "..", "..", "."];
        const ODD: [&str; 6] = ["", "outside", "models", "a\n", "...", ".kserve-agent-part"];
        let start = if self.below(16) == 0 { "/" } else { "" };
        let length = self.below(4) + 1;
        let mut segment = || if self.below(16) == 0 { ODD[self.below(6)] } else { SEGMENTS[self.below(6)] };
        let segments: Vec<&str> = (0..length).map(|_| segment()).collect();
        format!("{start}{}", segments.join("/"))
    }

    fn item(&mut self) -> Item {
        let kind = b"0222212256"[self.below(10)];
        let (name, rest) = (self.path(), self.path());
        item(kind, &name, &rest)
    }
}
