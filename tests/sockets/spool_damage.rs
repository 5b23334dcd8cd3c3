//! A folder of the queue on disk that is damaged, full or of no use: what can be saved is delivered, and the rest is said
//! (SPEC L6).

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;

use crate::spool_support::{
    Folder, ask, await_accepted, await_names, delivered, ends, kill, leave, names, spooling, stop,
};
use crate::support::agent::free_port;
use crate::support::sink::{TAKEN, dead_flag, setup};
use crate::support::{Agent, Books, PATIENCE, Server, Sink, until};

/// The same in every run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }
}

fn skipped(agent: &Agent, why: &str) -> u64 {
    agent.metrics().count(&format!("kserve_logger_spool_skipped_total{{reason=\"{why}\"}}"))
}

fn lines(agent: &Agent, of: &str) -> usize {
    agent.log().lines().filter(|line| line.contains(of)).count()
}

/// The bytes of a segment with these events, and where each ends.
fn segment(numbers: std::ops::Range<usize>) -> (Vec<u8>, Vec<usize>) {
    let folder = Folder::new();
    leave(&folder, numbers, 300);
    let [path] = &folder.segments()[..] else { panic!("{:?}", folder.segments()) };
    (fs::read(path).unwrap(), ends(path))
}

#[test]
fn damage_at_any_place_costs_what_is_behind_it_and_no_other_segment() {
    let ((first, ends), (second, _)) = (segment(0..20), segment(100..110));
    let (server, mut chance) = (Server::good(), Chance(7));
    for round in 0..24 {
        let at = chance.below(first.len());
        let mut damaged = first.clone();
        match round % 3 {
            0 => damaged.truncate(at),
            1 => damaged[at] ^= 1 << chance.below(8),
            _ => (at..first.len().min(at + 64)).for_each(|at| damaged[at] = u8::try_from(chance.below(256)).unwrap()),
        }
        let whole = ends.iter().filter(|end| **end <= at).count();
        let (folder, sink) = (Folder::new(), Sink::good());
        fs::write(folder.segment(3), &damaged).unwrap();
        fs::write(folder.segment(4), &second).unwrap();
        let agent = spooling(&server, &sink.flag(), &folder, &[]);
        folder.await_empty(&agent);
        let found = delivered(&sink);
        assert!(found.is_superset(&names(100..110)), "round {round}, byte {at}");
        assert_eq!(found.len(), 20 + whole, "round {round}, byte {at}\n{}", agent.log());
        let good = whole.checked_sub(1).map_or(0, |last| ends[last]);
        let is_torn = damaged.len() > good;
        let said = agent.log().lines().filter(|line| line.contains("are no events")).count();
        assert_eq!(said, usize::from(is_torn), "round {round}, byte {at}\n{}", agent.log());
    }
}

#[test]
fn what_is_no_segment_blocks_none_and_is_said_once() {
    let (server, folder, sink) = (Server::good(), Folder::new(), Sink::good());
    let (good, _) = segment(0..10);
    fs::write(folder.segment(0), vec![0xa5; 100_000]).unwrap();
    fs::write(folder.segment(1), b"").unwrap();
    fs::write(folder.segment(2), [0; 5]).unwrap();
    fs::write(folder.segment(3), [0; 4096]).unwrap();
    fs::create_dir(folder.segment(4)).unwrap();
    std::os::unix::fs::symlink("/nowhere", folder.segment(5)).unwrap();
    let _socket = UnixListener::bind(folder.segment(6)).unwrap();
    let made = std::process::Command::new("mkfifo").arg(folder.segment(7)).status().unwrap();
    assert!(made.success());
    fs::write(folder.segment(8), &good).unwrap();
    fs::write(folder.path.join("notes.events"), b"mine").unwrap();
    fs::write(folder.path.join("notes"), b"mine").unwrap();
    let agent = spooling(&server, &sink.flag(), &folder, &[]);
    await_names(&sink, &names(0..10), &agent);
    ask(&agent, 100..101, 10);
    await_names(&sink, &names(0..10).union(&names(100..101)).cloned().collect(), &agent);
    assert_eq!(skipped(&agent, "error"), 0);
    for number in [0, 2, 3] {
        let name = folder.segment(number).display().to_string();
        assert_eq!(lines(&agent, &format!("{name}: the last")), 1, "{}", agent.log());
    }
    for number in 4..8 {
        let name = folder.segment(number).display().to_string();
        assert_eq!(lines(&agent, &format!("{name} is no file")), 1, "{}", agent.log());
    }
    let log = stop(agent);
    assert!(!log.contains("for the next start"), "{log}");
    let left: BTreeSet<_> = folder.segments().into_iter().collect();
    let mine = (4..8).map(|number| folder.segment(number)).chain([folder.path.join("notes.events")]).collect();
    assert_eq!(left, mine, "only what was the agent's is deleted");
    assert!(folder.path.join("notes").exists());
}

#[test]
fn a_number_that_has_no_next_is_no_reason_to_end() {
    let (server, folder, sink) = (Server::good(), Folder::new(), Sink::good());
    fs::write(folder.segment(u64::MAX), "mine").unwrap();
    let agent = spooling(&server, &sink.flag(), &folder, &[]);
    ask(&agent, 0..10, 10);
    await_names(&sink, &names(0..10), &agent);
    assert_eq!(skipped(&agent, "error"), 0);
    assert!(folder.segment(u64::MAX).exists(), "it can't be the agent's");
}

#[test]
fn segments_that_may_only_be_read_are_delivered_and_deleted() {
    let (server, folder, sink) = (Server::good(), Folder::new(), Sink::good());
    leave(&folder, 0..10, 100);
    folder.segments().iter().for_each(|path| fs::set_permissions(path, fs::Permissions::from_mode(0o400)).unwrap());
    let agent = spooling(&server, &sink.flag(), &folder, &[]);
    await_names(&sink, &names(0..10), &agent);
    folder.await_empty(&agent);
}

#[test]
fn a_full_folder_costs_the_restart_only_and_is_used_again_when_there_is_room() {
    let (server, folder) = (Server::good(), Folder::new());
    // The folder may have 400 000 bytes; one event holds its segment.
    let held = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let is_held = std::sync::Arc::clone(&held);
    let sink = Sink::with(move |event| {
        let waits = event.id() == "0" && is_held.load(std::sync::atomic::Ordering::Relaxed);
        if waits { b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n" } else { TAKEN }.to_vec()
    });
    let agent = spooling(&server, &sink.flag(), &folder, &["--log-queue-bytes=100000", "--log-mode=request"]);
    for number in 0..100 {
        ask(&agent, number..number + 1, 10_000);
        await_accepted(&agent, number + 1);
        until("it is delivered", || Books::of(&agent).waiting <= 1);
    }
    let full = skipped(&agent, "full");
    assert!((55..70).contains(&full), "{full}");
    assert!(agent.metrics().count("kserve_logger_spool_bytes") <= 400_000);
    assert_eq!(lines(&agent, "--log-spool-dir: it is full"), 1, "{}", agent.log());
    held.store(false, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(Books::settled(&agent), Books::all_sent(100));
    for number in 100..150 {
        ask(&agent, number..number + 1, 10_000);
        await_accepted(&agent, number + 1);
        Books::settled(&agent);
    }
    assert_eq!(skipped(&agent, "full"), full, "there is room again");
}

#[test]
fn a_disk_that_is_full_costs_the_restart_only() {
    let Some(folder) = Folder::mounted("size=256k") else {
        return eprintln!("not tried: no file system of a test's own can be mounted here");
    };
    let server = Server::good();
    let (port, dead) = dead_flag();
    let agent = spooling(&server, &dead, &folder, &["--log-mode=request"]);
    ask(&agent, 0..200, 3000);
    await_accepted(&agent, 200);
    let lost = skipped(&agent, "error");
    // 256 KiB have less than 90 of them; those that were to be written at once are lost together.
    assert!((110..200).contains(&lost), "{lost}");
    assert_eq!(lines(&agent, "--log-spool-dir: No space left"), 1, "{}", agent.log());
    // What was written is there after a crash: of events that were to be written at once perhaps the first ones.
    kill(agent);
    let agent = spooling(&server, &dead, &folder, &["--log-mode=request"]);
    until("all are read", || Books::of(&agent).accepted >= 200 - lost);
    ask(&agent, 200..300, 3000);
    let sink = Sink::good_on(port);
    until("the new ones are delivered as well", || Books::of(&agent).sent >= 300 - lost);
    let books = Books::settled(&agent);
    let found = delivered(&sink);
    assert_eq!((found.len() as u64, books.failed), (books.sent, 0));
    assert!((200..300).all(|number| found.contains(&(number.to_string(), true))));
    let unwritten = skipped(&agent, "error");
    // There is room again.
    ask(&agent, 300..301, 3000);
    until("it is delivered", || Books::of(&agent).sent == books.sent + 1);
    assert_eq!(skipped(&agent, "error"), unwritten, "{}", agent.log());
}

#[test]
fn a_folder_of_no_use_is_an_error_at_the_start() {
    let server = Server::good();
    let folder = Folder::new();
    let used = spooling(&server, &dead_flag().1, &folder, &[]);
    let file = Folder::new();
    fs::write(file.path.join("f"), "").unwrap();
    let read_only = Folder::mounted("ro");
    let mut cases = vec![
        (folder.path.clone(), "another process uses this folder"),
        (file.path.join("f"), "File exists"),
        (file.path.join("f/below"), "Not a directory"),
        ("/proc/spool".into(), "No such file or directory"),
    ];
    match &read_only {
        Some(folder) => cases.push((folder.path.clone(), "Read-only file system")),
        None => eprintln!("not tried: no file system of a test's own can be mounted here"),
    }
    for (path, reason) in cases {
        let flag = format!("--log-spool-dir={}", path.display());
        let mut agent = setup(&server, &dead_flag().1).flags(&[&flag]).spawn(free_port());
        assert_eq!(agent.wait(PATIENCE).code(), Some(1), "{}", agent.log());
        until("it says why", || agent.log().contains("[ERROR]"));
        let log = agent.log();
        let line = log.lines().find(|line| line.contains("[ERROR]")).unwrap();
        assert!(line.contains(&flag.replace('=', " ")) && line.contains(reason), "{log}");
    }
    // It has not noticed.
    assert_eq!(used.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").status(), 200);
    await_accepted(&used, 2);
}

#[test]
fn a_folder_that_goes_away_is_counted_and_costs_no_event() {
    let (server, folder, sink) = (Server::good(), Folder::new(), Sink::good());
    let agent = spooling(&server, &sink.flag(), &folder, &[]);
    ask(&agent, 0..10, 10);
    await_accepted(&agent, 20);
    fs::remove_dir_all(&folder.path).unwrap();
    // The segment that is written has no name any more, and the next one none at all.
    ask(&agent, 10..40, 100_000);
    await_accepted(&agent, 80);
    assert_eq!(Books::settled(&agent), Books::all_sent(80));
    await_names(&sink, &names(0..40), &agent);
    assert!(skipped(&agent, "error") > 0);
    fs::create_dir(&folder.path).unwrap();
}
