use super::super::list::List;
use super::*;

fn spec(uri: &str) -> Spec {
    let json = format!(r#"[{{"modelName":"m","modelSpec":{{"storageUri":"{uri}"}}}}]"#);
    List::parse(json.as_bytes()).unwrap().models.remove("m").unwrap()
}

fn list(names: &[&str]) -> BTreeMap<String, Spec> {
    names.iter().map(|name| ((*name).to_owned(), spec("s3://one"))).collect()
}

fn ready(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn refused() -> Result<(), Failed> {
    Err(Failed { reason: "refused".to_owned(), after: None, is_full: false })
}

#[track_caller]
fn step(models: &mut Models, now: Instant, result: Result<(), Failed>) -> Step {
    let order = models.next(true, now).expect("there is something to do");
    models.ended(&order.name, result, now, 1.0);
    order.step
}

/// One model that the server has.
fn loaded(now: Instant) -> Models {
    let mut models = Models::default();
    models.want(list(&["m"]));
    assert!(matches!(step(&mut models, now, Ok(())), Step::Pull(_)));
    assert!(matches!(step(&mut models, now, Ok(())), Step::Load(_)));
    assert!(models.next(true, now).is_none() && models.were_tried());
    models
}

#[test]
fn a_server_that_was_started_anew_gets_its_models_again() {
    let now = Instant::now();
    let mut models = loaded(now);
    models.are_ready(&ready(&["m"]), now + Duration::from_secs(1));
    assert!(models.next(true, now).is_none());
    models.are_ready(&ready(&[]), now + Duration::from_secs(2));
    assert!(matches!(step(&mut models, now, Ok(())), Step::Load(_)));
    assert!(models.next(true, now).is_none());
}

#[test]
fn a_server_that_never_calls_it_ready_is_not_told_again_and_again() {
    let now = Instant::now();
    let mut models = loaded(now);
    for second in 1..9 {
        models.are_ready(&ready(&["other"]), now + Duration::from_secs(second));
        assert!(models.next(true, now).is_none());
    }
}

#[test]
fn what_the_server_said_before_it_loaded_a_model_is_of_no_meaning() {
    let now = Instant::now();
    let mut models = loaded(now);
    models.are_ready(&ready(&["m"]), now + Duration::from_secs(1));
    models.models.get_mut("m").unwrap().loaded_at = Some(now + Duration::from_secs(3));
    models.are_ready(&ready(&[]), now + Duration::from_secs(2));
    assert!(models.next(true, now).is_none());
}

/// A server that loads by itself what it finds in its folder.
#[test]
fn a_model_that_the_server_loaded_by_itself_is_ready_whatever_failed_before() {
    let now = Instant::now();
    let mut models = Models::found([("m".to_owned(), spec("s3://one").version())].into(), |_| false, ModelUpdate::Auto);
    models.want(list(&["m"]));
    assert!(matches!(step(&mut models, now, refused()), Step::Load(_)));
    assert_eq!(models.models["m"].state(), State::Failed);
    models.are_ready(&ready(&["m"]), now + Duration::from_secs(30));
    assert_eq!(models.models["m"].state(), State::Ready);
    assert_eq!(models.next_due(true), None);
}

#[test]
fn nothing_is_due_while_every_thread_has_a_step() {
    let now = Instant::now();
    let mut models = Models::default();
    models.want(list(&["a"]));
    step(&mut models, now, refused());
    let due = models.next_due(true).unwrap();
    models.want(list(&["a", "b", "c", "d", "e"]));
    let orders: Vec<Order> = std::iter::from_fn(|| models.next(true, due)).collect();
    let names: Vec<&str> = orders.iter().map(|order| order.name.as_str()).collect();
    assert_eq!(names, ["b", "c", "d", "e"], "one that has failed comes behind the others");
    assert_eq!(models.next_due(true), None);
    models.ended("b", refused(), due, 1.0);
    assert_eq!(models.next_due(true), Some(due));
    assert_eq!(models.next(true, due).unwrap().name, "a");
}

#[test]
fn waits_grow_to_the_longest_and_end_with_another_version() {
    let now = Instant::now();
    let mut models = Models::default();
    models.want(list(&["m"]));
    let mut due = now;
    for wanted in [1, 2, 4, 8, 16, 32, 60, 60] {
        step(&mut models, due, refused());
        let next = models.next_due(true).unwrap();
        assert_eq!(next - due, Duration::from_secs(wanted));
        due = next;
    }
    assert_eq!(models.models["m"].failures(), 8);
    models.want([("m".to_owned(), spec("s3://two"))].into());
    assert!(models.next(true, now).is_some());
}

#[test]
fn a_store_may_ask_for_time_but_not_for_days() {
    let now = Instant::now();
    for (asked, granted) in [(Some(90), 90), (Some(999_999), 3600), (None, 1)] {
        let mut models = Models::default();
        models.want(list(&["m"]));
        let failed = Failed { reason: "busy".to_owned(), after: asked.map(Duration::from_secs), is_full: false };
        step(&mut models, now, Err(failed));
        assert_eq!(models.next_due(true), Some(now + Duration::from_secs(granted)), "{asked:?}");
    }
}

#[test]
fn models_that_fail_again_and_again_do_not_keep_the_first_round_from_its_end() {
    let now = Instant::now();
    let mut models = Models::default();
    models.want(list(&["a", "b"]));
    for _ in 0..2 {
        step(&mut models, now, refused());
    }
    let later = now + Duration::from_secs(2);
    let order = models.next(true, later).unwrap();
    assert!(models.were_tried(), "both have failed, and one is tried again");
    models.ended(&order.name, Ok(()), later, 1.0);
    assert!(models.were_tried());
}

#[test]
fn a_removal_does_not_wait_for_loads() {
    let now = Instant::now();
    let mut models = Models::default();
    models.want(list(&["a", "b", "c"]));
    // The first is there and loaded, the second is there.
    (0..3).for_each(|_| drop(step(&mut models, now, Ok(()))));
    let second = models.next(true, now).unwrap();
    assert!(matches!(step(&mut models, now, Ok(())), Step::Pull(_)));
    let third = models.next(true, now).unwrap();
    assert!([second, third].iter().all(|order| matches!(order.step, Step::Load(_))), "both loads are under way");
    models.want(list(&["b", "c"]));
    assert_eq!(models.next(true, now).map(|order| order.step), Some(Step::Unload));
}

#[test]
fn a_download_that_was_stopped_has_not_failed_and_its_folder_is_its_own() {
    let now = Instant::now();
    let mut models = Models::default();
    models.want(list(&["m"]));
    let Step::Pull(version) = models.next(true, now).unwrap().step else { panic!("no download") };
    models.want(list(&[]));
    assert!(models.keeps("m", &version), "its thread has it");
    // It is wanted once more before its thread has noticed.
    models.want(list(&["m"]));
    assert!(!models.ended("m", refused(), now, 1.0));
    assert!(matches!(step(&mut models, now, Ok(())), Step::Pull(_)));
    models.want(list(&[]));
    assert!(!models.keeps("m", &version));
}

#[test]
fn what_is_shown_of_a_uri_has_no_secret() {
    for (uri, wanted) in [
        ("http://user:password@h:1/a@b?sig=secret", "http://h:1/a@b"),
        ("HTTPS://token@h", "HTTPS://h"),
        ("abfs://container@account.blob.core.windows.net/m?sas", "abfs://container@account.blob.core.windows.net/m"),
        ("s3://b/m", "s3://b/m"),
    ] {
        assert_eq!(shown(uri), wanted);
    }
}

#[test]
fn a_version_without_room_beside_the_old_one_takes_its_place_unless_that_is_to_be_kept() {
    let full = || Err(Failed { reason: "no space".to_owned(), after: None, is_full: true });
    for (update, makes_way) in [(ModelUpdate::Auto, true), (ModelUpdate::Keep, false)] {
        let now = Instant::now();
        let mut models = Models { update, ..loaded(now) };
        models.want([("m".to_owned(), spec("s3://two"))].into());
        assert!(matches!(step(&mut models, now, full()), Step::Pull(_)));
        let later = now + Duration::from_secs(60);
        let next = step(&mut models, later, Ok(()));
        assert_eq!(matches!(next, Step::Unload), makes_way, "{next:?}");
        if makes_way {
            assert!(matches!(step(&mut models, later, Ok(())), Step::Delete));
            assert!(matches!(step(&mut models, later, Ok(())), Step::Pull(_)));
            assert!(matches!(step(&mut models, later, Ok(())), Step::Load(_)));
            // The next one comes beside it again.
            models.want(list(&["m"]));
            assert!(matches!(step(&mut models, later, Ok(())), Step::Pull(_)));
        }
    }
}

#[test]
fn a_model_is_replaced_at_once_if_it_is_to_be() {
    let now = Instant::now();
    let mut models = Models { update: ModelUpdate::Replace, ..Models::default() };
    models.want(list(&["m"]));
    for next in ["s3://two", "s3://three"] {
        assert!(matches!(step(&mut models, now, Ok(())), Step::Pull(_)));
        assert!(matches!(step(&mut models, now, Ok(())), Step::Load(_)));
        models.want([("m".to_owned(), spec(next))].into());
        assert!(matches!(step(&mut models, now, Ok(())), Step::Unload));
        assert!(matches!(step(&mut models, now, Ok(())), Step::Delete));
    }
}

#[test]
fn a_server_that_fails_to_unload_keeps_no_files_for_ever() {
    let mut now = Instant::now();
    let mut models = loaded(now);
    models.want(BTreeMap::new());
    for _ in 0..MODEL_UNLOADS {
        assert!(matches!(step(&mut models, now, refused()), Step::Unload));
        now += Duration::from_secs(120);
    }
    assert!(matches!(step(&mut models, now, Ok(())), Step::Delete));
}

#[test]
fn nothing_but_downloads_begins_before_the_server_was_asked() {
    let now = Instant::now();
    let mut models = Models::default();
    models.want(list(&["m"]));
    let order = models.next(false, now).unwrap();
    assert!(matches!(order.step, Step::Pull(_)));
    models.ended("m", Ok(()), now, 1.0);
    assert!(models.next(false, now).is_none() && models.next_due(false).is_none());
    assert!(matches!(models.next(true, now).unwrap().step, Step::Load(_)));
}
