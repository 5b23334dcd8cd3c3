//! What the tests of the model puller share: its folders and its list, and a model server's repository that remembers.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::support::agent::Setup;
use crate::support::{Agent, Message, Server, Wire};

/// The folders of one agent, deleted in the end.
pub(crate) struct Place {
    root: PathBuf,
    lists: AtomicUsize,
}

/// A model server's repository of models: what it was told, and what it has.
pub(crate) struct Repository {
    pub(crate) server: Server,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    loaded: BTreeSet<String>,
    /// The status for these actions, as `load m`.
    failing: BTreeMap<String, u16>,
}

impl Place {
    pub(crate) fn new(name: &str) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = format!("kserve-agent-puller-{}-{number}-{name}", std::process::id());
        let root = std::env::temp_dir().join(folder);
        for folder in ["sources", "configs", "models"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        Self { root, lists: AtomicUsize::new(0) }
    }

    /// What a model has in its `text`, as a URI.
    pub(crate) fn source(&self, name: &str, text: &str) -> String {
        let folder = self.root.join("sources").join(name);
        fs::create_dir_all(folder.join("sub")).unwrap();
        fs::write(folder.join("text"), text).unwrap();
        fs::write(folder.join("sub/text"), text).unwrap();
        format!("file://{}", folder.display())
    }

    /// Puts a list in its place as a ConfigMap's volume does.
    pub(crate) fn list(&self, models: &[(&str, &str)]) {
        self.text(&list(models));
    }

    /// The same with any text.
    pub(crate) fn text(&self, text: &str) {
        let configs = self.configs();
        let number = self.lists.fetch_add(1, Ordering::Relaxed);
        let (data, next) = (format!("..data_{number}"), configs.join("..data_tmp"));
        fs::create_dir(configs.join(&data)).unwrap();
        fs::write(configs.join(&data).join("models.json"), text).unwrap();
        symlink(&data, &next).unwrap();
        fs::rename(&next, configs.join("..data")).unwrap();
        // It may be there from before.
        let _ = symlink("..data/models.json", self.file());
        if let Some(before) = number.checked_sub(1) {
            fs::remove_dir_all(configs.join(format!("..data_{before}"))).unwrap();
        }
    }

    pub(crate) fn configs(&self) -> PathBuf {
        self.root.join("configs")
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.configs().join("models.json")
    }

    pub(crate) fn models(&self) -> PathBuf {
        self.root.join("models")
    }

    pub(crate) fn model(&self, name: &str) -> PathBuf {
        self.models().join(name)
    }

    /// An agent with these folders.
    pub(crate) fn agent(&self, repository: &Repository) -> Setup {
        self.agent_at(repository.server.port)
    }

    pub(crate) fn agent_at(&self, port: u16) -> Setup {
        let flags = [
            "--enable-puller".to_owned(),
            format!("--config-dir={}", self.configs().display()),
            format!("--model-dir={}", self.models().display()),
            format!("--model-source-dir={}", self.root.display()),
        ];
        Agent::setup(port).flags(&flags.each_ref().map(String::as_str)).watched()
    }

    /// The text of a model that is there as a whole; `None`: there is none. Anything between panics.
    #[track_caller]
    pub(crate) fn whole(&self, name: &str) -> Option<String> {
        let model = self.model(name);
        // A folder that is held can't become another one between two looks.
        let names = fs::read_dir(&model).ok()?.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let names: BTreeSet<String> = names.collect();
        let markers = names.iter().filter(|name| name.starts_with("SUCCESS.")).count();
        assert_eq!((markers, names.len()), (1, 3), "{names:?}");
        let [text, below] = ["text", "sub/text"].map(|file| fs::read_to_string(model.join(file)).unwrap());
        assert_eq!(text, below);
        Some(text)
    }

    /// What is in the agent's own folder.
    pub(crate) fn hidden(&self) -> Vec<String> {
        names(&self.models().join(".kserve-agent"))
    }

    /// The models' folders.
    pub(crate) fn on_disk(&self) -> Vec<String> {
        names(&self.models()).into_iter().filter(|name| !name.starts_with('.')).collect()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What is left is in a folder for temporary things.
        let _ = fs::remove_dir_all(&self.root);
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// `models.json` with these names and URIs.
pub(crate) fn list(models: &[(&str, &str)]) -> String {
    let entry = |(name, uri): &(&str, &str)| json!({"modelName": name, "modelSpec": spec(uri)});
    Value::from(models.iter().map(entry).collect::<Vec<_>>()).to_string()
}

pub(crate) fn spec(uri: &str) -> Value {
    json!({"storageUri": uri, "framework": "sklearn", "memory": "1Gi"})
}

impl Repository {
    pub(crate) fn new() -> Self {
        Self::on(0)
    }

    /// One that has nothing, on a port that was another's.
    pub(crate) fn on(port: u16) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let of_server = Arc::clone(&state);
        let server = Server::start_on(port, move |mut peer| {
            while let Some(request) = peer.request() {
                let (status, body) = of_server.lock().unwrap().answer(&request);
                let length = body.len();
                let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n\r\n{body}");
                if peer.wire.try_send(answer).is_err() {
                    return;
                }
            }
        });
        Self { server, state }
    }

    /// What it was told to load and unload, in order.
    pub(crate) fn told(&self) -> Vec<String> {
        self.server.seen().iter().filter_map(action).collect()
    }

    pub(crate) fn loaded(&self) -> Vec<String> {
        self.state.lock().unwrap().loaded.iter().cloned().collect()
    }

    /// It has a model from before.
    pub(crate) fn has(&self, name: &str) {
        self.state.lock().unwrap().loaded.insert(name.to_owned());
    }

    /// Answers this action, as `load m`, with this status from now on; 200: it does it.
    pub(crate) fn fail(&self, action: &str, status: u16) {
        self.state.lock().unwrap().failing.insert(action.to_owned(), status);
    }
}

impl State {
    fn answer(&mut self, request: &Message) -> (u16, String) {
        if request.target() == "/v2/repository/index" {
            let all = self.loaded.iter().map(|name| json!({"name": name, "state": "READY", "reason": ""}));
            return (200, Value::from(all.collect::<Vec<_>>()).to_string());
        }
        let Some(action) = action(request) else { return (200, "{}".to_owned()) };
        assert_eq!((request.line().split(' ').next(), request.text().as_str()), (Some("POST"), "{}"));
        match (self.failing.get(&action), action.split_once(' ')) {
            (Some(status), _) if *status != 200 => return (*status, "it can't".to_owned()),
            (_, Some(("load", name))) => drop(self.loaded.insert(name.to_owned())),
            (_, Some((_, name))) => drop(self.loaded.remove(name)),
            (_, None) => {}
        }
        (200, String::new())
    }
}

/// `load m` or `unload m`.
fn action(request: &Message) -> Option<String> {
    let target = request.target();
    let (name, action) = target.strip_prefix("/v2/repository/models/")?.split_once('/')?;
    Some(format!("{action} {name}"))
}

/// What is shown of a model; `Null`: nothing.
pub(crate) fn shown(agent: &Agent, name: &str) -> Value {
    let models = status(agent)["models"]["models"].clone();
    models.as_array().and_then(|models| models.iter().find(|model| model["name"] == name)).cloned().unwrap_or_default()
}

pub(crate) fn status(agent: &Agent) -> Value {
    let mut client = Wire::connect(agent.admin_port);
    client.send("GET /status.json HTTP/1.1\r\nHost: localhost\r\n\r\n");
    serde_json::from_slice(&client.response().body).unwrap()
}

pub(crate) fn is_ready(agent: &Agent, name: &str) -> bool {
    shown(agent, name)["state"] == "ready"
}
