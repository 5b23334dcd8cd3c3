//! An agent that is started anew, and what it left when it was killed: SPEC M3, M4.

use std::fs;
use std::time::Duration;

use crate::puller_support::{Place, Repository, is_ready};
use crate::support::agent::free_port;
use crate::support::until;

#[test]
fn a_model_that_is_there_is_not_fetched_again_and_loaded_only_if_the_server_lacks_it() {
    let (place, repository) = (Place::new("again"), Repository::new());
    let uri = place.source("one", "one");
    place.list(&[("m", &uri), ("n", &uri)]);
    drop(place.agent(&repository).start());
    // Whoever asked the source would find something else now.
    place.source("one", "two");
    let repository = Repository::new();
    repository.has("m");
    let agent = place.agent(&repository).start();
    assert_eq!(repository.told(), ["load n"]);
    assert!(is_ready(&agent, "m") && is_ready(&agent, "n"));
    for name in ["m", "n"] {
        assert_eq!(place.whole(name).as_deref(), Some("one"));
    }
}

#[test]
fn a_model_that_left_the_list_meanwhile_is_removed_at_the_start() {
    let (place, repository) = (Place::new("left"), Repository::new());
    let uri = place.source("one", "one");
    place.list(&[("m", &uri), ("n", &uri)]);
    drop(place.agent(&repository).start());
    // Neither a file nor a folder without a marker is the agent's.
    fs::create_dir(place.model("mine")).unwrap();
    fs::write(place.model("file"), "mine").unwrap();
    place.list(&[("n", &uri)]);
    let agent = place.agent(&repository).start();
    // The port alone may be another process's, which took it while the first round was under way.
    until("it serves", || agent.log().contains("serving on port"));
    assert_eq!(place.on_disk(), ["file", "mine", "n"]);
    assert_eq!(repository.told()[2..], ["unload m"]);
    assert!(place.hidden().is_empty());
}

#[test]
fn a_model_that_changed_meanwhile_is_replaced_at_the_start() {
    let (place, repository) = (Place::new("other"), Repository::new());
    place.list(&[("m", &place.source("one", "one"))]);
    drop(place.agent(&repository).start());
    place.list(&[("m", &place.source("two", "two"))]);
    let agent = place.agent(&repository).start();
    // The port alone may be another process's, which took it while the first round was under way.
    until("it serves", || agent.log().contains("serving on port"));
    assert_eq!(place.whole("m").as_deref(), Some("two"));
    assert_eq!(repository.told(), ["load m", "load m"]);
}

/// What the list changes to while the agent is killed.
#[cfg(feature = "fault-injection")]
#[track_caller]
fn assert_survives(step: &str, before: Option<&str>, after: Option<&str>) {
    assert_survives_without("nothing", step, before, after);
}

/// The same on a file system that lacks a call.
#[cfg(feature = "fault-injection")]
#[track_caller]
fn assert_survives_without(call: &str, step: &str, before: Option<&str>, after: Option<&str>) {
    let (place, repository) = (Place::new(step), Repository::new());
    let say = |text: Option<&str>| match text {
        Some(text) => place.list(&[("m", &place.source(text, text))]),
        None => place.list(&[]),
    };
    say(before);
    if before.is_some() {
        drop(place.agent(&repository).start());
    }
    say(after);
    let killed = place.agent(&repository).env("KSERVE_AGENT_KILL_AT", step).env("KSERVE_AGENT_LACKS", call);
    let mut killed = killed.spawn(free_port());
    let status = killed.wait(Duration::from_secs(10));
    assert!(std::os::unix::process::ExitStatusExt::signal(&status) == Some(9), "{step}: {status} {}", killed.log());
    let left = place.whole("m");
    // Where two folders can't change places there is none for a moment.
    let is_away = call == "exchange" && step == "displaced" && left.is_none();
    assert!(is_away || [before, after].contains(&left.as_deref()), "{step}: {left:?}");
    let told = repository.told().len();
    let agent = place.agent(&repository).start();
    // The port alone may be another process's, which took it while the first round was under way.
    until("it serves", || agent.log().contains("serving on port"));
    assert_eq!(place.whole("m").as_deref(), after, "{step}");
    assert_eq!(place.hidden(), Vec::<String>::new(), "{step}");
    // The server has what lies there, though it has the name from before.
    let wanted: &[&str] = if after.is_some() { &["load m"] } else { &[] };
    assert_eq!(repository.told()[told..], *wanted, "{step}");
    assert_eq!(repository.loaded().len(), wanted.len(), "{step}");
}

#[cfg(feature = "fault-injection")]
#[test]
fn a_new_model_survives_a_kill_at_every_step() {
    for step in ["pulling", "pulled", "marked", "placed"] {
        assert_survives(step, None, Some("one"));
    }
}

#[cfg(feature = "fault-injection")]
#[test]
fn a_changed_model_survives_a_kill_at_every_step() {
    for step in ["pulling", "pulled", "marked", "exchanged", "placed"] {
        assert_survives(step, Some("one"), Some("two"));
    }
}

#[cfg(feature = "fault-injection")]
#[test]
fn a_changed_model_survives_it_where_folders_cannot_change_places() {
    for step in ["marked", "displaced", "placed"] {
        assert_survives_without("exchange", step, Some("one"), Some("two"));
    }
}

#[cfg(feature = "fault-injection")]
#[test]
fn a_model_that_is_removed_stays_so_after_a_kill() {
    assert_survives("removed", Some("one"), None);
}

/// A dozen models come, change and go while the agent is killed at any moment.
#[test]
fn a_kill_at_any_moment_leaves_whole_models() {
    let (place, repository) = (Place::new("any"), Repository::new());
    let texts = ["one", "two", "three"].map(|text| (text, place.source(text, text)));
    let names: Vec<String> = (0..12).map(|number| format!("m{number}")).collect();
    let mut wanted = Vec::new();
    for round in 0..40_usize {
        let text = |number: usize| (round * 7 + number * 5) % 4;
        wanted =
            names.iter().enumerate().filter_map(|(number, name)| Some((&**name, texts.get(text(number))?))).collect();
        let list: Vec<(&str, &str)> = wanted.iter().map(|(name, (_, uri))| (*name, uri.as_str())).collect();
        place.list(&list);
        let agent = place.agent(&repository).spawn(free_port());
        let moment = std::time::Instant::now() + Duration::from_micros(u64::try_from(round * 1500).unwrap());
        until("it is the moment", || std::time::Instant::now() >= moment);
        drop(agent);
        for name in &names {
            place.whole(name);
        }
    }
    let agent = place.agent(&repository).start();
    // The port alone may be another process's, which took it while the first round was under way.
    until("it serves", || agent.log().contains("serving on port"));
    let there: Vec<(&str, String)> = names.iter().filter_map(|name| Some((&**name, place.whole(name)?))).collect();
    let wanted: Vec<(&str, String)> = wanted.iter().map(|(name, (text, _))| (*name, (*text).to_owned())).collect();
    assert_eq!(there, wanted);
    assert_eq!(place.hidden(), Vec::<String>::new());
    let mut loaded: Vec<&str> = wanted.iter().map(|(name, _)| *name).collect();
    loaded.sort_unstable();
    assert_eq!(repository.loaded(), loaded);
}
