//! The environment as the stores read it: empty is unset, and what is set wrongly is named.

use url::Url;

/// Reads variables, each when a store is opened.
#[derive(Clone, Copy)]
pub(crate) struct Environment<'e>(pub(crate) &'e dyn Fn(&str) -> Option<String>);

impl Environment<'_> {
    /// A variable's text. Secrets come out of files and templates, often with a line's end.
    pub(crate) fn text(self, name: &str) -> Option<String> {
        (self.0)(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
    }

    /// A switch. KServe's controller writes `1` and `0` for some of them, `true` and `false` for others.
    pub(super) fn switch(self, name: &str) -> Result<Option<bool>, String> {
        let Some(text) = self.text(name) else { return Ok(None) };
        match text.to_ascii_lowercase().as_str() {
            "1" | "true" => Ok(Some(true)),
            "0" | "false" => Ok(Some(false)),
            _ => Err(format!("{name}: {text:?} is not allowed: one of true, false, 1, 0")),
        }
    }

    /// An address of a service, without a slash at its end. It is not quoted, as it may hold a password.
    pub(crate) fn url(self, name: &str) -> Result<Option<String>, String> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let wrong = || format!("{name} is not a URL as https://host:port/path");
        let url = Url::parse(&text).map_err(|_| wrong())?;
        let is_plain =
            url.username().is_empty() && url.password().is_none() && url.query().is_none() && url.fragment().is_none();
        if !matches!(url.scheme(), "http" | "https") || !is_plain {
            return Err(wrong());
        }
        Ok(Some(url.as_str().trim_end_matches('/').to_owned()))
    }

    /// Variables that only make sense together: all of them, none, or the name of one that is missing.
    pub(super) fn together<const N: usize>(self, names: [&str; N]) -> Result<Option<[String; N]>, String> {
        let texts = names.map(|name| self.text(name));
        if texts.iter().all(Option::is_none) {
            return Ok(None);
        }
        if let Some(missing) = texts.iter().position(Option::is_none) {
            return Err(format!("{} is not set, {} are needed together", names[missing], names.join(", ")));
        }
        Ok(Some(texts.map(Option::unwrap_or_default)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reads(text: &'static str) -> impl Fn(&str) -> Option<String> {
        move |name| (name == "X_Y").then(|| text.to_owned())
    }

    #[test]
    fn empty_is_unset() {
        assert_eq!(Environment(&reads(" \n")).text("X_Y"), None);
        assert_eq!(Environment(&reads("")).switch("X_Y"), Ok(None));
        assert_eq!(Environment(&reads("a\n")).text("X_Y"), Some("a".to_owned()));
    }

    #[test]
    fn a_switch_is_on_or_off_and_anything_else_is_named() {
        for (text, value) in [("1", true), ("True", true), ("0", false), ("false", false)] {
            assert_eq!(Environment(&reads(text)).switch("X_Y"), Ok(Some(value)), "{text}");
        }
        let error = Environment(&reads("yes")).switch("X_Y").unwrap_err();
        assert_eq!(error, "X_Y: \"yes\" is not allowed: one of true, false, 1, 0");
    }

    #[test]
    fn an_address_is_a_plain_url() {
        for (text, url) in [("http://h:9000/", "http://h:9000"), ("https://h/a/b/", "https://h/a/b")] {
            assert_eq!(Environment(&reads(text)).url("X_Y"), Ok(Some(url.to_owned())));
        }
        for text in ["h:9000", "ftp://h", "http://", "http://u:secret@h", "http://h?secret", "http://h h", "http://ü"]
        {
            let error = Environment(&reads(text)).url("X_Y").unwrap_err();
            assert_eq!(error, "X_Y is not a URL as https://host:port/path", "{text}");
        }
    }

    #[test]
    fn of_variables_that_belong_together_the_missing_one_is_named() {
        assert_eq!(Environment(&reads("a")).together(["Z_1", "Z_2"]), Ok(None));
        let error = Environment(&reads("a")).together(["X_Y", "Z_2"]).unwrap_err();
        assert_eq!(error, "Z_2 is not set, X_Y, Z_2 are needed together");
    }
}
