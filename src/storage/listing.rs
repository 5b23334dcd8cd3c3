//! A listing, page by page, of which no more than one page is in memory.
//!
//! A store knows no folders, only keys that begin alike, and `model1` and `model10` do. So what is asked for is what
//! begins with `model1/`, and, if there is nothing, the one object that is called `model1`: keys come in their order, and
//! of all keys that begin with `model1` it is the first.

use super::Store;
use super::failure::Failure;
use super::object::{Entry, Object};
use crate::config::{STORE_PAGE_OBJECTS, STORE_PAGES};

/// One answer of a store.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) entries: Vec<Entry>,
    /// What to ask for the next page with, if there is one.
    pub(super) next: Option<String>,
}

/// The objects of a folder, or one object.
#[derive(Debug)]
pub struct Listing<'s> {
    store: &'s Store,
    step: Step,
    pages: usize,
    /// An object was found.
    has_any: bool,
}

#[derive(Debug)]
enum Step {
    /// The next page of the folder, by what the last one said.
    Folder(Option<String>),
    /// There is no such folder.
    Object,
    Done,
}

impl<'s> Listing<'s> {
    pub(super) fn new(store: &'s Store) -> Self {
        Self { store, step: Step::Folder(None), pages: 0, has_any: false }
    }

    /// The objects of the next page, which may be none; `None` when there is no further page. After a failure the same
    /// page is asked for again.
    pub fn page(&mut self) -> Result<Option<Vec<Object>>, Failure> {
        let objects = match &self.step {
            Step::Done => return Ok(None),
            Step::Folder(token) => {
                let folder = self.folder();
                let page = self.store.page(&folder, token.as_deref(), STORE_PAGE_OBJECTS)?;
                let objects = below(&folder, page.entries)?;
                let next = self.next(page.next)?;
                self.has_any |= !objects.is_empty();
                self.step = match next {
                    Some(token) => Step::Folder(Some(token)),
                    None if self.has_any => Step::Done,
                    None => Step::Object,
                };
                objects
            }
            Step::Object => {
                let key = &self.store.address.prefix;
                let page = if key.is_empty() { None } else { Some(self.store.page(key, None, 1)?) };
                let entry = page.and_then(|page| page.entries.into_iter().find(|entry| entry.key == *key));
                let Some(entry) = entry else {
                    return Err(Failure::refused("there is no object and no folder of this name"));
                };
                let object = entry.at(key.rsplit('/').next().unwrap_or_default())?;
                self.step = Step::Done;
                vec![object]
            }
        };
        self.pages += 1;
        Ok(Some(objects))
    }

    /// What the keys of the folder begin with.
    fn folder(&self) -> String {
        let prefix = &self.store.address.prefix;
        if prefix.is_empty() { String::new() } else { format!("{prefix}/") }
    }

    /// The token, unless a store leads in circles.
    fn next(&self, token: Option<String>) -> Result<Option<String>, Failure> {
        match (&self.step, &token) {
            (Step::Folder(Some(last)), Some(next)) if last == next => {
                Err(Failure::transient("the listing does not go on: the store repeats a page"))
            }
            (_, Some(_)) if self.pages + 1 >= STORE_PAGES => {
                Err(Failure::refused(format!("the listing has more than {STORE_PAGES} pages")))
            }
            _ => Ok(token),
        }
    }
}

/// Those below the folder. Left out is what consoles store so that a folder shows: nothing, under a key that ends in a
/// slash.
fn below(folder: &str, entries: Vec<Entry>) -> Result<Vec<Object>, Failure> {
    let is_marker = |entry: &Entry| entry.size == 0 && entry.key.ends_with('/');
    let found = entries.into_iter().filter(|entry| !is_marker(entry)).map(|entry| {
        let path = entry.key.strip_prefix(folder).map(str::to_owned);
        let path = path.ok_or_else(|| Failure::transient("the listing has keys that were not asked for"))?;
        entry.at(&path)
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::failure::Kind;

    fn entry(key: &str, size: u64) -> Entry {
        Entry { key: key.to_owned(), size, version: None, crc32c: None }
    }

    fn paths(folder: &str, entries: &[(&str, u64)]) -> Result<Vec<String>, Failure> {
        let objects = below(folder, entries.iter().map(|(key, size)| entry(key, *size)).collect())?;
        Ok(objects.into_iter().map(|object| object.path).collect())
    }

    #[test]
    fn paths_are_below_the_folder_and_markers_are_left_out() {
        let entries = [("m/", 0), ("m/a", 1), ("m/d/", 0), ("m/d/b", 0)];
        assert_eq!(paths("m/", &entries), Ok(vec!["a".to_owned(), "d/b".to_owned()]));
        assert_eq!(paths("", &[("a", 1), ("b/c", 1)]), Ok(vec!["a".to_owned(), "b/c".to_owned()]));
        let empty = [("m//x", 1), ("m//", 0), ("m/a//b/", 1)];
        assert_eq!(paths("m/", &empty), Ok(vec!["x".to_owned(), "a/b".to_owned()]), "empty segments mean nothing");
        assert_eq!(paths("m//7/", &[("m//7/x", 1)]), Ok(vec!["x".to_owned()]));
    }

    #[test]
    fn a_key_that_would_leave_the_folder_fails_the_listing_with_its_name() {
        for key in ["m/../x", "m/./x", "m//../x", "m//", "m/a\nb", "m/\u{1b}[2J", "m/a/.."] {
            let failure = paths("m/", &[("m/a", 1), (key, 1)]).unwrap_err();
            assert_eq!(failure.kind, Kind::Refused);
            assert_eq!(failure.reason, format!("the object {key:?} can't be a file in a folder"));
        }
    }

    #[test]
    fn a_key_that_was_not_asked_for_is_not_taken() {
        assert_eq!(paths("m/", &[("m10/a", 1)]).unwrap_err().kind, Kind::Transient { after: None });
    }
}
