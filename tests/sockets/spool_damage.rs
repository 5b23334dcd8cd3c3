//! A folder of the queue on disk that is damaged, full or of no use: what can be saved is delivered, and the rest is said
//! (SPEC L6).

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;

use crate::spool_support::{
    Folder, ask, await_accepted, await_names, delivered, ends, kill, leave, names, spooling, stop,
};
use crate::support::sink::{TAKEN, dead_flag, setup};
use crate::support::{Agent, Books, Server, Sink, until};

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

/// The bytes of a segment with these events, its mark, and where each event ends.
fn segment(numbers: std::ops::Range<usize>, payload: usize) -> (Vec<u8>, u64, Vec<usize>) {
    let folder = Folder::new();
    leave(&folder, numbers, payload);
    let [path] = &folder.segments()[..] else { panic!("{:?}", folder.segments()) };
    let bytes = fs::read(path).unwrap();
    let mark = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    (bytes, mark, ends(path))
}

fn corrupt(agent: &Agent) -> u64 {
    agent.metrics().sum("kserve_logger_spool_corrupt_total")
}

#[test]
fn damage_at_any_place_costs_the_events_that_it_hits_and_no_others() {
    let ((first, mark, ends), (second, other, _)) = (segment(0..20, 300), segment(100..110, 300));
    let (server, mut chance) = (Server::good(), Chance(7));
    for round in 0..24 {
        let at = chance.below(first.len());
        let mut damaged = first.clone();
        let hit = match round % 3 {
            0 => {
                damaged.truncate(at);
                at..first.len()
            }
            1 => {
                damaged[at] ^= 1 << chance.below(8);
                at..at + 1
            }
            _ => {
                let until = first.len().min(at + 64);
                (at..until).for_each(|at| damaged[at] = u8::try_from(chance.below(256)).unwrap());
                at..until
            }
        };
        let starts = std::iter::once(0).chain(ends.iter().copied());
        let lost = starts.zip(&ends).filter(|(start, end)| *start < hit.end && hit.start < **end).count();
        let (folder, sink) = (Folder::new(), Sink::good());
        folder.put(3, mark, &damaged);
        folder.put(4, other, &second);
        let agent = spooling(&server, &sink.flag(), &folder, &[]);
        folder.await_empty(&agent);
        let found = delivered(&sink);
        assert!(found.is_superset(&names(100..110)), "round {round}, byte {at}");
        // A mark or a state that is damaged costs nothing.
        let least = 60 - lost;
        assert!((least..=least + usize::from(lost > 0)).contains(&found.len()), "{round}, {at}: {}", found.len());
        let books = Books::settled(&agent);
        assert_eq!(books.sent, found.len() as u64);
        // Those that were cut off by the end of the file are one torn event, or none if it was cut between two.
        let counted = corrupt(&agent);
        if round % 3 == 0 {
            assert_eq!(counted, u64::from(at > 0 && !ends.contains(&at)), "round {round}, byte {at}");
        } else {
            assert_eq!((counted > 0, books.failed), (found.len() < 60, counted), "round {round}, byte {at}");
            assert!(counted <= lost as u64, "round {round}, byte {at}: {counted}");
        }
        let aside: usize = folder.corrupt().iter().map(Vec::len).sum();
        assert_eq!(aside > 0, counted > 0, "round {round}, byte {at}");
    }
}

#[test]
fn a_payload_that_looks_like_events_is_none_behind_a_damaged_place() {
    let (mut bytes, mark, ends) = segment(0..3, 1000);
    let folder = Folder::new();
    // The first event's payload holds a whole event of another segment, so its checksum is wrong.
    let (forged, _, forged_ends) = segment(700..701, 100);
    let (at, length) = (ends[0] - 900, forged_ends[0]);
    bytes[at..at + length].copy_from_slice(&forged[..length]);
    // And its length leads nowhere, so the next event must be looked for.
    bytes[13] ^= 1;
    folder.put(0, mark, &bytes);
    let (server, sink) = (Server::good(), Sink::good());
    let agent = spooling(&server, &sink.flag(), &folder, &[]);
    folder.await_empty(&agent);
    assert_eq!((delivered(&sink).len(), corrupt(&agent)), (5, 1));
    assert!(delivered(&sink).iter().all(|(id, _)| id != "700"));
}

#[test]
fn what_is_no_segment_blocks_none_and_is_said() {
    let (server, folder, sink) = (Server::good(), Folder::new(), Sink::good());
    let (good, mark, _) = segment(0..10, 300);
    fs::write(folder.segment(0), vec![0xa5; 100_000]).unwrap();
    fs::write(folder.segment(1), b"").unwrap();
    fs::write(folder.segment(2), [0; 5]).unwrap();
    fs::write(folder.segment(3), [0; 4096]).unwrap();
    fs::create_dir(folder.segment(4)).unwrap();
    std::os::unix::fs::symlink("/nowhere", folder.segment(5)).unwrap();
    let _socket = UnixListener::bind(folder.segment(6)).unwrap();
    let made = std::process::Command::new("mkfifo").arg(folder.segment(7)).status().unwrap();
    assert!(made.success());
    folder.put(8, mark, &good);
    fs::write(folder.path.join("notes.events"), b"mine").unwrap();
    fs::write(folder.path.join("notes"), b"mine").unwrap();
    let agent = spooling(&server, &sink.flag(), &folder, &[]);
    await_names(&sink, &names(0..10), &agent);
    ask(&agent, 100..101, 10);
    await_names(&sink, &names(0..10).union(&names(100..101)).cloned().collect(), &agent);
    assert_eq!((skipped(&agent, "error"), corrupt(&agent)), (0, 3));
    assert_eq!(lines(&agent, "are no event"), 1, "{}", agent.log());
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
    // Segments have 64 KiB; one event holds its segment.
    let held = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let is_held = std::sync::Arc::clone(&held);
    let sink = Sink::with(move |event| {
        let waits = event.id() == "0" && is_held.load(std::sync::atomic::Ordering::Relaxed);
        if waits { b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n" } else { TAKEN }.to_vec()
    });
    let agent = spooling(&server, &sink.flag(), &folder, &["--log-spool-bytes=60000", "--log-mode=request"]);
    for number in 0..20 {
        ask(&agent, number..number + 1, 10_000);
        await_accepted(&agent, number + 1);
        until("it is delivered", || Books::of(&agent).waiting <= 1);
    }
    let full = skipped(&agent, "full");
    assert!((13..17).contains(&full), "{full}");
    assert!(agent.metrics().count("kserve_logger_spool_bytes") <= 60_000);
    assert_eq!(agent.metrics().count("kserve_logger_spool_limit_bytes"), 60_000);
    assert_eq!(lines(&agent, "--log-spool-dir: it has --log-spool-bytes"), 1, "{}", agent.log());
    held.store(false, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(Books::settled(&agent), Books::all_sent(20));
    for number in 100..120 {
        ask(&agent, number..number + 1, 10_000);
        await_accepted(&agent, number - 80 + 1);
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
fn a_folder_of_no_use_is_said_once_and_tried_again_while_events_are_delivered() {
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
        let (flag, sink) = (format!("--log-spool-dir={}", path.display()), Sink::good());
        let agent = setup(&server, &sink.flag()).flags(&[&flag]).start();
        assert_eq!(agent.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").status(), 200);
        sink.await_events(2);
        let log = agent.log();
        let errors: Vec<&str> = log.lines().filter(|line| line.contains("[ERROR]")).collect();
        assert!(
            errors.len() == 1 && errors[0].contains(&flag.replace('=', " ")) && errors[0].contains(reason),
            "{log}"
        );
    }
    // It has not noticed.
    assert_eq!(used.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").status(), 200);
    await_accepted(&used, 2);
    // Another takes it over as soon as it is free, with the events in it.
    let sink = Sink::good();
    let flag = format!("--log-spool-dir={}", folder.path.display());
    let next = setup(&server, &sink.flag()).flags(&[&flag]).start();
    until("it waits", || next.log().contains("another process uses this folder"));
    used.signal(rustix::process::Signal::KILL);
    sink.await_events(2);
    assert!(next.log().contains("it can be used now"), "{}", next.log());
}

#[test]
fn a_folder_that_goes_away_is_counted_and_costs_no_event() {
    let (server, folder, sink) = (Server::good(), Folder::new(), Sink::good());
    // Segments of 64 KiB.
    let agent = spooling(&server, &sink.flag(), &folder, &["--log-spool-bytes=4000000"]);
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
