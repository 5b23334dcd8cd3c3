//! What fails while models come and go, and who does not suffer from it: SPEC M3, M5.

use std::fs;
use std::net::TcpStream;
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::puller_support::{Place, Repository, is_ready, shown};
use crate::support::agent::free_port;
use crate::support::process::ticks;
use crate::support::{Agent, Peer, Server, holds_within, until};

const FILE: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: 10\r\n\r\n";

/// A web server that sends half of each file, and the other half when it is let go.
fn half() -> (Server, mpsc::Sender<()>) {
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    let server = Server::start(move |mut peer: Peer| {
        while peer.request().is_some() {
            let begun = peer.wire.try_send(format!("{FILE}01234"));
            let _ = released.lock().unwrap().recv();
            if begun.and_then(|()| peer.wire.try_send("56789")).is_err() {
                return;
            }
        }
    });
    (server, release)
}

/// A web server whose file comes byte by byte, and has no end.
fn endless() -> Server {
    // Nobody ever sends.
    let pause = Mutex::new(mpsc::channel::<()>());
    Server::start(move |mut peer: Peer| {
        let _ = peer.request();
        let mut sent = peer.wire.try_send("HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n");
        while sent.is_ok() {
            let _ = pause.lock().unwrap().1.recv_timeout(Duration::from_millis(5));
            sent = peer.wire.try_send("x");
        }
    })
}

fn uri(server: &Server, name: &str) -> String {
    format!("http://127.0.0.1:{}/{name}", server.port)
}

fn is_open(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}

/// Started, with a first download that hangs.
fn waiting(place: &Place, repository: &Repository, web: &Server) -> Agent {
    place.list(&[("m", &uri(web, "model.bin"))]);
    let agent = place.agent(repository).spawn(free_port());
    until("the operators' ports are open", || is_open(agent.metrics_port) && is_open(agent.admin_port));
    until("half of it is there", || shown(&agent, "m")["downloaded_bytes"] == 5);
    assert!(!is_open(agent.port), "nothing is served before the first round");
    agent
}

#[test]
fn the_port_opens_when_the_first_round_was_tried_and_those_of_operators_before() {
    let (place, repository, (web, release)) = (Place::new("first"), Repository::new(), half());
    let agent = waiting(&place, &repository, &web);
    let model = shown(&agent, "m");
    assert_eq!((&model["state"], &model["size_bytes"]), (&"downloading".into(), &10.into()));
    let metrics = agent.metrics();
    assert_eq!(metrics.count("model_downloaded_bytes{model=\"m\"}"), 5);
    assert_eq!(metrics.count("model_size_bytes{model=\"m\"}"), 10);
    assert_eq!(metrics.count("models{state=\"downloading\"}"), 1);
    assert_eq!((place.on_disk().len(), repository.told().len()), (0, 0));
    release.send(()).unwrap();
    until("it serves", || is_open(agent.port));
    assert_eq!(repository.told(), ["load m"]);
    assert_eq!(fs::read_to_string(place.model("m").join("model.bin")).unwrap(), "0123456789");
}

#[test]
fn a_signal_during_the_first_round_ends_the_agent_at_once() {
    let (place, repository, (web, _release)) = (Place::new("signal"), Repository::new(), half());
    let mut agent = waiting(&place, &repository, &web);
    agent.signal(Signal::TERM);
    // Nobody was served, so nobody is waited for: neither the quiet time nor the download.
    assert!(agent.wait(Duration::from_secs(2)).success(), "{}", agent.log());
    assert!(place.on_disk().is_empty());
}

#[test]
fn the_latest_list_wins_over_a_download_under_way() {
    let (place, repository, web) = (Place::new("latest"), Repository::new(), endless());
    let is_coming = |agent: &Agent, name: &str| shown(agent, name)["downloaded_bytes"].as_u64() > Some(0);
    place.list(&[("m", &uri(&web, "model.bin"))]);
    let agent = place.agent(&repository).spawn(free_port());
    until("the operators' ports are open", || is_open(agent.metrics_port) && is_open(agent.admin_port));
    until("some of it is there", || is_coming(&agent, "m"));
    place.list(&[("m", &place.source("one", "one"))]);
    until("the other one is there", || is_ready(&agent, "m"));
    assert_eq!(place.whole("m").as_deref(), Some("one"));
    assert_eq!(agent.metrics().count("model_failures_total{model=\"m\"}"), 0);
    place.list(&[("n", &uri(&web, "model.bin"))]);
    until("some of it is there", || is_coming(&agent, "n"));
    place.list(&[]);
    let is_gone = || place.on_disk().is_empty() && place.hidden().is_empty() && shown(&agent, "n").is_null();
    until("nothing is left", is_gone);
    assert_eq!(repository.told(), ["load m", "unload m"]);
}

#[test]
fn a_model_that_fails_is_shown_and_tried_again_until_it_comes() {
    let (place, repository) = (Place::new("late"), Repository::new());
    let uri = place.source("late", "late");
    let moved = place.configs().join("elsewhere");
    let folder = std::path::PathBuf::from(uri.strip_prefix("file://").unwrap());
    fs::rename(&folder, &moved).unwrap();
    place.list(&[("m", &uri), ("n", "ftp://h/x"), ("o", &place.source("one", "one"))]);
    let agent = place.agent(&repository).start();
    assert_eq!(repository.told(), ["load o"]);
    let model = shown(&agent, "m");
    assert!(model["reason"].as_str().unwrap().contains("No such file"), "{model}");
    assert_eq!((&model["state"], &model["uri"]), (&"failed".into(), &uri.as_str().into()));
    assert!(model["failures"].as_u64().unwrap() >= 1);
    let reason = shown(&agent, "n")["reason"].as_str().unwrap().to_owned();
    assert!(["s3://", "hf://", "pvc://"].iter().all(|scheme| reason.contains(scheme)), "{reason}");
    assert_eq!(agent.metrics().count("models{state=\"failed\"}"), 2);
    fs::rename(&moved, &folder).unwrap();
    until("it has come", || is_ready(&agent, "m"));
    assert!(shown(&agent, "m")["reason"].is_null());
    assert_eq!(place.whole("m").as_deref(), Some("late"));
}

#[test]
fn a_server_that_comes_late_gets_its_models() {
    let place = Place::new("server");
    let port = free_port();
    place.list(&[("m", &place.source("one", "one"))]);
    let agent = place.agent_at(port).start();
    assert!(shown(&agent, "m")["reason"].as_str().unwrap().starts_with("model server: "), "{}", shown(&agent, "m"));
    assert_eq!(place.whole("m").as_deref(), Some("one"));
    let repository = Repository::on(port);
    until("it is loaded", || is_ready(&agent, "m"));
    assert_eq!(repository.told(), ["load m"]);
}

#[test]
fn a_model_that_the_server_refuses_holds_up_no_other() {
    let (place, repository) = (Place::new("refused"), Repository::new());
    let uri = place.source("one", "one");
    repository.fail("load m1", 500);
    let names: Vec<String> = (0..9).map(|number| format!("m{number}")).collect();
    let all: Vec<(&str, &str)> = names.iter().map(|name| (&**name, &*uri)).collect();
    place.list(&all);
    let agent = place.agent(&repository).start();
    assert_eq!(repository.loaded().len(), 8);
    assert_eq!(shown(&agent, "m1")["reason"], "model server: status 500: it can't");
    assert_eq!(agent.metrics().count("model_ready{model=\"m1\"}"), 0);
    repository.fail("load m1", 200);
    until("it is loaded", || is_ready(&agent, "m1"));
}

#[test]
fn of_five_hundred_models_those_that_fail_hold_up_no_other() {
    let (place, repository) = (Place::new("many"), Repository::new());
    let uri = place.source("one", "one");
    let names: Vec<String> = (0..500).map(|number| format!("m{number:03}")).collect();
    let of = |number: usize| if number.is_multiple_of(10) { "file:///nowhere" } else { &*uri };
    let all: Vec<(&str, &str)> = names.iter().enumerate().map(|(number, name)| (&**name, of(number))).collect();
    place.list(&all);
    let agent = place.agent(&repository).spawn(free_port());
    assert!(holds_within(Duration::from_secs(60), || is_open(agent.port)), "{}", agent.log());
    assert_eq!((place.on_disk().len(), repository.loaded().len()), (450, 450));
    let metrics = agent.metrics();
    assert_eq!(metrics.count("models{state=\"ready\"}"), 450);
    assert_eq!(metrics.count("models{state=\"failed\"}") + metrics.count("models{state=\"downloading\"}"), 50);
    assert_eq!(repository.told().len(), 450, "each was loaded once");
    place.list(&[]);
    assert!(holds_within(Duration::from_secs(60), || place.on_disk().is_empty() && repository.loaded().is_empty()));
    until("all are forgotten", || agent.metrics().sum("models") == 0);
}

/// A model that is due, while all threads are busy, has to wait for one without asking again and again.
#[test]
fn who_waits_for_a_thread_uses_no_processor() {
    let (place, repository, (web, _release)) = (Place::new("busy"), Repository::new(), half());
    let names = ["a", "b", "c", "d"].map(|name| (name, uri(&web, name)));
    place.list(&[("m", "file:///nowhere")]);
    let agent = place.agent(&repository).start();
    let all: Vec<(&str, &str)> = names.iter().map(|(name, uri)| (*name, &**uri)).collect();
    place.list(&[&all[..], &[("m", "file:///nowhere")]].concat());
    until("all threads are busy", || agent.metrics().count("models{state=\"downloading\"}") == 4);
    until("the other is due", || shown(&agent, "m")["next_try_seconds"] == 0.0);
    let (before, begin) = (ticks(agent.pid()), Instant::now());
    until("a second is over", || begin.elapsed() > Duration::from_secs(1));
    let used = ticks(agent.pid()) - before;
    assert!(used < 20, "{used} ticks of 10 ms in a second");
}

#[test]
fn a_models_folder_that_cant_be_made_is_said_and_used_as_soon_as_it_can() {
    let (place, repository) = (Place::new("folder"), Repository::new());
    place.list(&[("m", &place.source("m", "one"))]);
    let file = place.configs().join("file");
    fs::write(&file, "").unwrap();
    let flag = format!("--model-dir={}", file.join("models").display());
    let agent = place.agent(&repository).flags(&[&flag]).start();
    assert_eq!(agent.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").status(), 200, "the proxy serves");
    let log = agent.log();
    assert!(log.contains("--model-dir: Not a directory") && log.matches("it is tried again").count() == 1, "{log}");
    fs::remove_file(&file).unwrap();
    until("the model is there", || file.join("models/m/text").exists());
}
