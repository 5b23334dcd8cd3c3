//! What files a revision has: its commit, and the commit's tree page by page.

use std::collections::HashSet;

use serde::Deserialize;
use ureq::http::header::LINK;
use url::Url;

use super::Hub;
use crate::config::{ARCHIVE_NAME_BYTES, HUB_PAGE_BYTES, HUB_PAGES, PULLER_OWN_PREFIX};
use crate::puller::extent;
use crate::puller::source::Stop;
use crate::puller::web::{Client, Fields};
use crate::storage::{Failure, Http, encode, is_path, shown};

/// A file of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Its place in the model's folder.
    ///
    /// INVARIANT: segments that name something, divided by single slashes.
    pub(super) path: String,
    pub(super) size: u64,
    pub(super) digest: Digest,
}

/// What its content is known by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Digest {
    /// Of a large file's content, in hexadecimal digits.
    Sha256(String),
    /// Of a small one's as git names it, SHA-1 of a header and the content.
    Git(String),
}

impl Hub {
    /// The commit that the revision is now.
    pub(super) fn commit(&self, client: &Client) -> Result<String, Failure> {
        #[derive(Deserialize)]
        struct Revision {
            sha: String,
        }
        let url = self.url("/api/models", &format!("/revision/{}", encode(&self.revision)))?;
        let revision = |failure: Failure| failure.of(format_args!("the revision {}", shown(&self.revision)));
        let (text, _) = self.page(client, &url).map_err(revision)?;
        let Revision { sha } = serde_json::from_str(&text).map_err(|_| not_understood())?;
        if is_hex(&sha, &[40, 64]) { Ok(sha) } else { Err(not_understood()) }
    }

    /// All files of a commit.
    pub(super) fn list(&self, client: &Client, commit: &str, stop: &Stop) -> Result<Vec<Entry>, Failure> {
        let mut next = Some(self.url("/api/models", &format!("/tree/{commit}?recursive=true"))?);
        let (mut entries, mut path_bytes) = (Vec::new(), 0);
        for _ in 0..HUB_PAGES {
            stop.check()?;
            let Some(url) = next else { break };
            let (text, link) = self.page(client, &url).map_err(|failure| failure.of("the list of files"))?;
            let page = parse(&text)?;
            path_bytes += page.iter().map(|entry| entry.path.len()).sum::<usize>();
            entries.extend(page);
            extent::check_files(entries.len(), path_bytes)?;
            next = link.and_then(|link| following(&link, &url));
        }
        if next.is_some() {
            return Err(Failure::refused(format!("the list of files has more than {HUB_PAGES} pages")));
        }
        check_paths(&entries)?;
        if entries.is_empty() { Err(Failure::refused("there is no file in it")) } else { Ok(entries) }
    }

    fn page(&self, client: &Client, url: &Url) -> Result<(String, Option<String>), Failure> {
        let response = client.get(url, &self.secret, &Fields::default())?;
        let link = response.headers().get(LINK).and_then(|value| value.to_str().ok()).map(str::to_owned);
        Ok((Http::body(response, HUB_PAGE_BYTES)?, link))
    }
}

/// A page of a tree.
fn parse(text: &str) -> Result<Vec<Entry>, Failure> {
    #[derive(Deserialize)]
    struct Item {
        r#type: String,
        path: String,
        #[serde(default)]
        size: u64,
        oid: String,
        lfs: Option<Large>,
    }
    #[derive(Deserialize)]
    struct Large {
        oid: String,
        size: u64,
    }
    let items: Vec<Item> = serde_json::from_str(text).map_err(|_| not_understood())?;
    let files = items.into_iter().filter(|item| item.r#type == "file");
    let entries = files.map(|Item { path, size, oid, lfs, .. }| {
        let is_own = path.starts_with(PULLER_OWN_PREFIX);
        if !is_path(&path) || is_own || path.len() > ARCHIVE_NAME_BYTES {
            return Err(Failure::refused(format!("the file {} can't be one in a folder", shown(&path))));
        }
        let (digest, size) = match lfs {
            Some(Large { oid, size }) if is_hex(&oid, &[64]) => (Digest::Sha256(oid), size),
            None if is_hex(&oid, &[40]) => (Digest::Git(oid), size),
            _ => return Err(not_understood()),
        };
        Ok(Entry { path, size, digest })
    });
    entries.collect()
}

/// A commit is a tree, in which no path is twice: of two files that come to the same place one would be lost.
fn check_paths(entries: &[Entry]) -> Result<(), Failure> {
    let mut seen = HashSet::new();
    match entries.iter().find(|entry| !seen.insert(&entry.path)) {
        Some(twice) => Err(Failure::refused(format!("the list of files has {} twice", shown(&twice.path)))),
        None => Ok(()),
    }
}

/// The next page, of the same server (RFC 8288).
fn following(link: &str, at: &Url) -> Option<Url> {
    let (target, parameters) =
        link.split(',').find_map(|one| one.trim().strip_prefix('<')?.split_once('>').filter(is_next))?;
    let _ = parameters;
    let url = at.join(target).ok()?;
    (url.origin() == at.origin()).then_some(url)
}

fn is_next((_, parameters): &(&str, &str)) -> bool {
    parameters.split(';').any(|one| matches!(one.trim(), "rel=\"next\"" | "rel=next"))
}

fn is_hex(text: &str, lengths: &[usize]) -> bool {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    lengths.contains(&text.len()) && text.bytes().all(is_digit)
}

fn not_understood() -> Failure {
    Failure::transient("the answer is not what the Hub answers; HF_ENDPOINT names another one")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA1: &str = "0123456789abcdef0123456789abcdef01234567";
    const SHA256: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn files_of_a_tree_are_listed_with_their_digests() {
        let text = format!(
            r#"[{{"type":"directory","oid":"{SHA1}","size":0,"path":"d"}},
                {{"type":"file","oid":"{SHA1}","size":3,"path":"config.json"}},
                {{"type":"file","oid":"{SHA1}","size":9,"path":"d/m.bin","xetHash":"x",
                  "lfs":{{"oid":"{SHA256}","size":9,"pointerSize":135}}}}]"#
        );
        let [config, model] = parse(&text).unwrap().try_into().unwrap();
        assert_eq!(config, Entry { path: "config.json".to_owned(), size: 3, digest: Digest::Git(SHA1.to_owned()) });
        assert_eq!(model, Entry { path: "d/m.bin".to_owned(), size: 9, digest: Digest::Sha256(SHA256.to_owned()) });
    }

    #[test]
    fn a_file_that_would_leave_the_folder_is_refused() {
        for path in ["../x", "/x", "a//b", "a/../../x", ".kserve-agent-parts/x", ""] {
            let text = format!(r#"[{{"type":"file","oid":"{SHA1}","size":3,"path":"{path}"}}]"#);
            let reason = parse(&text).unwrap_err().reason;
            assert_eq!(reason, format!("the file {path:?} can't be one in a folder"));
        }
    }

    #[test]
    fn a_tree_without_digests_is_not_taken() {
        for item in
            [r#""oid":"x""#, r#""oid":"../../../x""#, &format!(r#""oid":"{SHA1}","lfs":{{"oid":"{SHA1}","size":1}}"#)]
        {
            assert!(parse(&format!(r#"[{{"type":"file","size":3,"path":"a",{item}}}]"#)).is_err(), "{item}");
        }
        assert!(parse("{}").is_err());
    }

    #[test]
    fn the_next_page_is_one_of_the_same_server() {
        let at = Url::parse("https://h/api/tree").unwrap();
        let next = |link: &str| following(link, &at).map(String::from);
        assert_eq!(
            next(r#"<https://h/api/tree?cursor=a%3D>; rel="next""#),
            Some("https://h/api/tree?cursor=a%3D".to_owned())
        );
        assert_eq!(next(r#"<a>; rel="prev", <b>; rel="next""#), Some("https://h/api/b".to_owned()));
        assert_eq!(next(r#"<https://other/>; rel="next""#), None);
        assert_eq!(next(r#"<a>; rel="prev""#), None);
    }
}
