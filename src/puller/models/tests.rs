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
    Err(Failed { reason: "refused".to_owned(), after: None })
}

#[track_caller]
fn step(models: &mut Models, now: Instant, result: Result<(), Failed>) -> Step {
    let order = models.next(now).expect("there is something to do");
    models.ended(&order.name, result, now, 1.0);
    order.step
}

/// One model that the server has.
fn loaded(now: Instant) -> Models {
    let mut models = Models::default();
    models.want(list(&["m"]));
    assert!(matches!(step(&mut models, now, Ok(())), Step::Pull(_)));
    assert!(matches!(step(&mut models, now, Ok(())), Step::Load(_)));
    assert!(models.next(now).is_none() && models.were_tried());
    models
}

#[test]
fn a_server_that_was_started_anew_gets_its_models_again() {
    let now = Instant::now();
    let mut models = loaded(now);
    models.are_ready(&ready(&["m"]), now + Duration::from_secs(1));
    assert!(models.next(now).is_none());
    models.are_ready(&ready(&[]), now + Duration::from_secs(2));
    assert!(matches!(step(&mut models, now, Ok(())), Step::Load(_)));
    assert!(models.next(now).is_none());
}

#[test]
fn a_server_that_never_calls_it_ready_is_not_told_again_and_again() {
    let now = Instant::now();
    let mut models = loaded(now);
    for second in 1..9 {
        models.are_ready(&ready(&["other"]), now + Duration::from_secs(second));
        assert!(models.next(now).is_none());
    }
}

#[test]
fn what_the_server_said_before_it_loaded_a_model_is_of_no_meaning() {
    let now = Instant::now();
    let mut models = loaded(now);
    models.are_ready(&ready(&["m"]), now + Duration::from_secs(1));
    models.models.get_mut("m").unwrap().loaded_at = Some(now + Duration::from_secs(3));
    models.are_ready(&ready(&[]), now + Duration::from_secs(2));
    assert!(models.next(now).is_none());
}

/// A server that loads by itself what it finds in its folder.
#[test]
fn a_model_that_the_server_loaded_by_itself_is_ready_whatever_failed_before() {
    let now = Instant::now();
    let mut models = Models::found([("m".to_owned(), spec("s3://one").version())].into(), |_| false);
    models.want(list(&["m"]));
    assert!(matches!(step(&mut models, now, refused()), Step::Load(_)));
    assert_eq!(models.models["m"].state(), State::Failed);
    models.are_ready(&ready(&["m"]), now + Duration::from_secs(30));
    assert_eq!(models.models["m"].state(), State::Ready);
    assert_eq!(models.next_due(), None);
}

#[test]
fn nothing_is_due_while_every_thread_has_a_step() {
    let now = Instant::now();
    let mut models = Models::default();
    models.want(list(&["a"]));
    step(&mut models, now, refused());
    let due = models.next_due().unwrap();
    models.want(list(&["a", "b", "c", "d", "e"]));
    let orders: Vec<Order> = std::iter::from_fn(|| models.next(due)).collect();
    let names: Vec<&str> = orders.iter().map(|order| order.name.as_str()).collect();
    assert_eq!(names, ["b", "c", "d", "e"], "one that has failed comes behind the others");
    assert_eq!(models.next_due(), None);
    models.ended("b", refused(), due, 1.0);
    assert_eq!(models.next_due(), Some(due));
    assert_eq!(models.next(due).unwrap().name, "a");
}

#[test]
fn waits_grow_to_the_longest_and_end_with_another_version() {
    let now = Instant::now();
    let mut models = Models::default();
    models.want(list(&["m"]));
    let mut due = now;
    for wanted in [1, 2, 4, 8, 16, 32, 60, 60] {
        step(&mut models, due, refused());
        let next = models.next_due().unwrap();
        assert_eq!(next - due, Duration::from_secs(wanted));
        due = next;
    }
    assert_eq!(models.models["m"].failures(), 8);
    models.want([("m".to_owned(), spec("s3://two"))].into());
    assert!(models.next(now).is_some());
}

#[test]
fn a_store_may_ask_for_time_but_not_for_days() {
    let now = Instant::now();
    for (asked, granted) in [(Some(90), 90), (Some(999_999), 3600), (None, 1)] {
        let mut models = Models::default();
        models.want(list(&["m"]));
        let failed = Failed { reason: "busy".to_owned(), after: asked.map(Duration::from_secs) };
        step(&mut models, now, Err(failed));
        assert_eq!(models.next_due(), Some(now + Duration::from_secs(granted)), "{asked:?}");
    }
}
