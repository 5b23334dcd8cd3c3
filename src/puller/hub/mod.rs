//! A model from the Hugging Face Hub, or what speaks as it does (SPEC M9): `hf://owner/model[:revision]`.
//!
//! A revision is made into a commit once, so all files are of the same one. Each comes on a connection of its own, from
//! wherever the Hub sends it to, without the token there; it is checked by the digest that the commit has of it, and gets
//! its place when all have come. What has come is kept by that digest: another attempt goes on with it, and so does one
//! for a later commit in which the file is the same.
//!
//! Not here: attempts after the first, the Hub's cache folder, and Xet, whose files the Hub also gives as any other's.

mod list;
mod sum;

use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;

use ureq::http::header::{AUTHORIZATION, HeaderValue};
use url::Url;

use self::list::Entry;
use self::sum::Sum;
use super::extent;
use super::scratch::{check_room, clear, failed, make_folder, make_parents, publish};
use super::source::{Progress, Stop};
use super::web::{Ask, Client, Download, Fields, Version};
use crate::config::{HUB_THREADS, PULLER_OWN_PREFIX};
use crate::ops::proxy::Proxies;
use crate::storage::{Environment, Failure, encode, encode_path, shown};

/// A model at a revision.
pub(super) struct Hub {
    endpoint: String,
    owner: String,
    model: String,
    revision: String,
    secret: Fields,
    proxies: Proxies,
}

impl Hub {
    /// By what is behind `hf://`. Nothing is asked of it yet.
    pub(crate) fn open(name: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, String> {
        const ALLOWED: &str = "a model of the Hub as hf://owner/model or hf://owner/model:revision";
        let (owner, rest) = name.split_once('/').ok_or(ALLOWED)?;
        let (model, revision) = rest.split_once(':').unwrap_or((rest, ""));
        let is_name = |text: &str| {
            let is_named = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
            (1..=NAME_BYTES).contains(&text.len()) && text.bytes().all(is_named) && !text.starts_with('.')
        };
        if !is_name(owner) || !is_name(model) || revision.contains(char::is_control) || revision.len() > NAME_BYTES {
            return Err(ALLOWED.to_owned());
        }
        let proxies = Proxies::read(env);
        let env = Environment(env);
        let endpoint = env.url("HF_ENDPOINT")?.unwrap_or_else(|| "https://huggingface.co".to_owned());
        let mut secret = Fields::default();
        if let Some(token) = env.text("HF_TOKEN") {
            let value = HeaderValue::from_str(&format!("Bearer {token}"));
            secret.0.push((AUTHORIZATION, value.map_err(|_| "HF_TOKEN can't be sent: it is no token")?));
        }
        let revision = if revision.is_empty() { "main" } else { revision }.to_owned();
        Ok(Self { endpoint, owner: owner.to_owned(), model: model.to_owned(), revision, secret, proxies })
    }

    pub(crate) fn fetch(&self, folder: &Path, progress: &Progress, stop: &Stop) -> Result<(), Failure> {
        clear(folder)?;
        progress.begin(0);
        let client = Client::new(&self.proxies)?;
        let commit = self.commit(&client)?;
        let entries = self.list(&client, &commit, stop)?;
        progress.expect(extent::sum(entries.iter().map(|entry| entry.size))?);
        let parts = folder.join(format!("{PULLER_OWN_PREFIX}parts"));
        make_folder(&parts)?;
        let job = Job { hub: self, client: &client, commit: &commit, parts: &parts, progress, stop };
        check_room(&parts, entries.iter().map(|entry| job.missing(entry)).fold(0, u64::saturating_add))?;
        job.fetch_all(&entries)?;
        for entry in &entries {
            make_parents(folder, &entry.path)?;
            publish(&job.part(entry), &folder.join(&entry.path))?;
        }
        fs::remove_dir_all(&parts).map_err(|error| failed(&parts, &error))
    }

    /// A URL of this model: `{endpoint}{kind}/{owner}/{model}{rest}`.
    fn url(&self, kind: &str, rest: &str) -> Result<Url, Failure> {
        let text = format!("{}{kind}/{}/{}{rest}", self.endpoint, self.owner, self.model);
        Url::parse(&text).map_err(|_| Failure::refused("HF_ENDPOINT and the model's name make no URL"))
    }
}

/// One attempt at all files.
struct Job<'j> {
    hub: &'j Hub,
    client: &'j Client,
    commit: &'j str,
    parts: &'j Path,
    progress: &'j Progress,
    stop: &'j Stop,
}

impl Job<'_> {
    /// Fetches all files, some at once. After a failure no other is begun, and those under way come to their ends: what
    /// they bring will be needed.
    fn fetch_all(&self, entries: &[Entry]) -> Result<(), Failure> {
        let next = Mutex::new(entries.iter());
        let take = || next.lock().unwrap_or_else(PoisonError::into_inner).next();
        let work = || {
            while let Some(entry) = take() {
                if let Err(failure) = self.fetch(entry) {
                    *next.lock().unwrap_or_else(PoisonError::into_inner) = [].iter();
                    return Err(failure.of(shown(&entry.path)));
                }
            }
            Ok(())
        };
        thread::scope(|scope| {
            let spawn = |number: usize| thread::Builder::new().name(format!("hub-{number}")).spawn_scoped(scope, work);
            let threads: Vec<_> = (0..HUB_THREADS.min(entries.len())).map(spawn).collect();
            let results = threads.into_iter().map(|thread| match thread.map(|thread| thread.join()) {
                Ok(Ok(result)) => result,
                Ok(Err(_)) => Err(Failure::transient("a thread of the download has panicked")),
                Err(error) => Err(Failure::transient(format!("a thread of the download: {error}"))),
            });
            // All of them are joined, and the first failure told.
            results.fold(Ok(()), Result::and)
        })
    }

    /// Fetches one file into its part, and checks it.
    fn fetch(&self, entry: &Entry) -> Result<(), Failure> {
        self.stop.check()?;
        let part = self.part(entry);
        let url = self.hub.url("", &format!("/resolve/{}/{}", encode(self.commit), encode_path(&entry.path)))?;
        let ask = Ask {
            client: self.client,
            url: &url,
            secret: &self.hub.secret,
            most: entry.size,
            progress: self.progress,
            stop: self.stop,
        };
        let version = Version { validator: None, size: Some(entry.size) };
        let mut sum = Sum::new(entry);
        if let Ok(mut have) = File::open(&part) {
            sum.read(&mut have, self.stop).map_err(|error| failed(&part, &error))?;
        }
        let mut download = Download::open(&ask, &part, Some(&version))?;
        if let Some(fields) = &download.fields {
            match Version::of(fields).size {
                Some(bytes) if bytes != entry.size => {
                    return Err(Failure::refused(format!("it has {bytes} bytes, the commit's has {}", entry.size)));
                }
                _ => {}
            }
            sum = Sum::new(entry);
        }
        download.rest(|piece| sum.update(piece))?;
        if sum.matches() {
            return Ok(());
        }
        // Nothing of it can be gone on with.
        fs::remove_file(&part).map_err(|error| failed(&part, &error))?;
        Err(Failure::transient("what has come is not the file that the commit has: its digest is another"))
    }

    /// Bytes of it that have not come.
    fn missing(&self, entry: &Entry) -> u64 {
        entry.size.saturating_sub(fs::metadata(self.part(entry)).map_or(0, |part| part.len()))
    }

    /// Where it comes to: by its path too, as files of the same content come at once.
    fn part(&self, entry: &Entry) -> PathBuf {
        self.parts.join(sum::name(&entry.path, &entry.digest))
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hub({}/{}:{})", self.owner, self.model, self.revision)
    }
}

/// Bytes of an owner's, a model's or a revision's name; the Hub allows 96 for the first two.
const NAME_BYTES: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;

    fn open(name: &str) -> Result<Hub, String> {
        Hub::open(name, &|name| (name == "HF_TOKEN").then(|| "hf_secret".to_owned()))
    }

    #[test]
    fn a_model_is_named_by_its_owner_and_perhaps_a_revision() {
        for (name, shown) in [
            ("openai-community/gpt2", "Hub(openai-community/gpt2:main)"),
            ("a/b:v1.0", "Hub(a/b:v1.0)"),
            ("a/b:refs/pr/1", "Hub(a/b:refs/pr/1)"),
            ("a/b:", "Hub(a/b:main)"),
        ] {
            assert_eq!(format!("{:?}", open(name).unwrap()), shown);
        }
        for name in ["", "gpt2", "/b", "a/", "a/b/c", "a/../c", "a b/c", "a/b?c", "a/b:\n", "./b"] {
            assert!(open(name).unwrap_err().starts_with("a model of the Hub as hf://"), "{name}");
        }
    }

    #[test]
    fn a_file_and_a_revision_stay_in_their_places_of_a_url() {
        let hub = open("a/b").unwrap();
        let url = hub.url("/api/models", &format!("/revision/{}", encode("refs/pr/1"))).unwrap();
        assert_eq!(url.as_str(), "https://huggingface.co/api/models/a/b/revision/refs%2Fpr%2F1");
        let url = hub.url("", &format!("/resolve/c0/{}", encode_path("d/a b?.bin"))).unwrap();
        assert_eq!(url.as_str(), "https://huggingface.co/a/b/resolve/c0/d/a%20b%3F.bin");
    }
}
