//! The life of a model, from the list to the server and away again: SPEC M1 to M3.

use std::fs;
use std::time::Duration;

use ring::digest::{SHA256, digest};

use crate::puller_support::{Place, Repository, is_ready, list, shown, status};
use crate::support::{holds_within, until};

/// A change of the list has to be noticed so fast.
const NOTICE: Duration = Duration::from_secs(1);

#[test]
fn a_new_model_is_pulled_marked_and_loaded_once() {
    let (place, repository) = (Place::new("new"), Repository::new());
    let uri = place.source("one", "one");
    place.list(&[("m", &uri)]);
    let agent = place.agent(&repository).start();
    // The port is open, so the first round was tried.
    assert_eq!(repository.told(), ["load m"]);
    assert_eq!(place.whole("m").as_deref(), Some("one"));
    let spec = format!(r#"{{"storageUri":"{uri}","framework":"sklearn","memory":"1Gi"}}"#);
    let hash: String = digest(&SHA256, spec.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(fs::read_to_string(place.model("m").join(format!("SUCCESS.{hash}"))).unwrap(), spec);
    assert!(is_ready(&agent, "m") && place.hidden().is_empty());
    // A server that loses the model from now on is known to have had it.
    let asked = || repository.server.seen().last().is_some_and(|last| last.target() == "/v2/repository/index");
    until("the server is asked", asked);
    assert_eq!(agent.metrics().count("model_ready{model=\"m\"}"), 1);
    assert_eq!(agent.metrics().count("models{state=\"ready\"}"), 1);
}

#[test]
fn a_removed_model_is_unloaded_and_then_deleted() {
    let (place, repository) = (Place::new("removed"), Repository::new());
    place.list(&[("m", &place.source("one", "one"))]);
    // While it can't be unloaded its files stay.
    repository.fail("unload m", 500);
    let agent = place.agent(&repository).start();
    place.list(&[]);
    until("it was tried", || shown(&agent, "m")["state"] == "failed");
    let model = shown(&agent, "m");
    assert_eq!(model["reason"], "model server: status 500: it can't");
    assert!((0.0..=1.0).contains(&model["next_try_seconds"].as_f64().unwrap()), "{model}");
    until("it was tried again", || repository.told().len() >= 3);
    assert_eq!(place.whole("m").as_deref(), Some("one"));
    repository.fail("unload m", 200);
    until("it is gone", || place.on_disk().is_empty() && shown(&agent, "m").is_null());
    assert!(repository.loaded().is_empty());
    assert!(repository.told()[1..].iter().all(|told| told == "unload m"), "{:?}", repository.told());
    until("nothing is left", || place.hidden().is_empty());
    assert_eq!(agent.metrics().sum("model_ready"), 0);
}

#[test]
fn a_changed_model_is_never_away_and_never_a_mixture() {
    let (place, repository) = (Place::new("changed"), Repository::new());
    let uris: Vec<String> = (0..20).map(|number| place.source(&number.to_string(), &number.to_string())).collect();
    place.list(&[("m", &uris[0])]);
    let _agent = place.agent(&repository).start();
    for (number, uri) in uris.iter().enumerate().skip(1) {
        place.list(&[("m", uri)]);
        // Held, a folder is one version whatever takes its place.
        until("the new one is in its place", || {
            let folder = fs::File::open(place.model("m")).expect("there is always a model");
            let held = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&folder));
            let Ok(text) = fs::read_to_string(format!("{held}/text")) else { return false };
            assert!([number - 1, number].map(|number| number.to_string()).contains(&text), "{text}");
            text == number.to_string()
        });
        until("it is loaded", || repository.told().len() == number + 1);
    }
    assert!(repository.told().iter().all(|told| told == "load m"), "{:?}", repository.told());
    assert_eq!(place.whole("m").as_deref(), Some("19"));
    until("nothing is left", || place.hidden().is_empty());
}

#[test]
fn a_list_that_says_the_same_changes_nothing() {
    let (place, repository) = (Place::new("same"), Repository::new());
    let uri = place.source("one", "one");
    place.list(&[("m", &uri)]);
    let agent = place.agent(&repository).start();
    let inode = std::os::unix::fs::MetadataExt::ino(&fs::metadata(place.model("m")).unwrap());
    place.text(&format!("  {}", list(&[("m", &uri)])));
    until("the list was read", || agent.log().matches("models.json: 1 models").count() == 2);
    // What comes after it has overtaken nothing.
    place.list(&[("m", &uri), ("n", &uri)]);
    until("the next is there", || is_ready(&agent, "n"));
    assert_eq!(repository.told(), ["load m", "load n"]);
    assert_eq!(std::os::unix::fs::MetadataExt::ino(&fs::metadata(place.model("m")).unwrap()), inode);
}

#[test]
fn a_list_that_says_nothing_leaves_the_last_good_one() {
    let (place, repository) = (Place::new("bad"), Repository::new());
    let uri = place.source("one", "one");
    place.list(&[("m", &uri)]);
    let agent = place.agent(&repository).start();
    for (text, why) in [
        (list(&[("n", &uri), ("n", &uri)]), "it has the model n twice"),
        ("[{".to_owned(), "it is no list"),
        (String::new(), "it is no list"),
        ("{}".to_owned(), "it is no list"),
    ] {
        place.text(&text);
        until("it is said", || {
            status(&agent)["models"]["list_failure"].as_str().is_some_and(|said| said.contains(why))
        });
        assert_eq!(agent.metrics().count("models_list_failed"), 1);
        assert!(agent.log().contains(why) && agent.log().contains("the models stay as they are"), "{}", agent.log());
    }
    fs::remove_file(place.file()).unwrap();
    let is_gone = |said: &str| said.contains("models.json: No such file");
    until("it is said", || status(&agent)["models"]["list_failure"].as_str().is_some_and(is_gone));
    assert!(is_ready(&agent, "m") && repository.told() == ["load m"]);
    place.list(&[("m", &uri), ("n", &uri)]);
    until("a good one is followed", || is_ready(&agent, "n"));
    assert!(status(&agent)["models"]["list_failure"].is_null());
    assert_eq!(agent.metrics().count("models_list_failed"), 0);
}

#[test]
fn a_hostile_name_is_refused_and_the_others_go_on() {
    let (place, repository) = (Place::new("hostile"), Repository::new());
    let uri = place.source("one", "one");
    let long = "x".repeat(201);
    let hostile = ["", ".", "..", "../up", "/etc/x", "a/b", ".kserve-agent", "a\nb", "a\0b", "a\\b", &long];
    let odd = ["a b", "ü%2f..", "SUCCESS.m", "m.old", "m", "-rf"];
    let all: Vec<(&str, &str)> = hostile.iter().chain(&odd).map(|name| (*name, uri.as_str())).collect();
    place.list(&all);
    let agent = place.agent(&repository).start();
    let mut wanted = odd.to_vec();
    wanted.sort_unstable();
    assert_eq!(place.on_disk(), wanted);
    assert_eq!(agent.log().matches("[ERROR] --config-dir: models.json: entry").count(), hostile.len());
    assert!(repository.told().contains(&"load %C3%BC%252f..".to_owned()), "{:?}", repository.told());
    assert_eq!(agent.metrics().count("models{state=\"ready\"}"), odd.len() as u64);
    assert_eq!(agent.metrics().count("models_list_failed"), 1);
}

#[test]
fn every_way_to_change_the_list_is_noticed_within_a_second() {
    let (place, repository) = (Place::new("notice"), Repository::new());
    let uri = place.source("one", "one");
    place.list(&[]);
    let agent = place.agent(&repository).start();
    let assert_noticed = |name: &str| assert!(holds_within(NOTICE, || is_ready(&agent, name)), "{}", agent.log());
    place.list(&[("swapped", &uri)]);
    assert_noticed("swapped");
    place.list(&[("again", &uri)]);
    assert_noticed("again");
    // A plain file takes the place of the link.
    let next = place.configs().join("next");
    fs::write(&next, list(&[("renamed", &uri)])).unwrap();
    fs::rename(&next, place.file()).unwrap();
    assert_noticed("renamed");
    fs::write(place.file(), list(&[("written", &uri)])).unwrap();
    assert_noticed("written");
}
