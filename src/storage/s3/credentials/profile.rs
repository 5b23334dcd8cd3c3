//! Keys and a region from the files that AWS's tools share: `~/.aws/credentials` and `~/.aws/config`.
//!
//! Not here: roles that are taken with another profile's keys, single sign-on, and programs that print keys. The image
//! has nothing to run, and a profile that needs one of them is an error that says so.

use std::collections::BTreeMap;
use std::path::PathBuf;

use rusty_s3::Credentials;

use crate::storage::environment::Environment;
use crate::storage::watched;

/// A profile, and the files that it may be in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::storage::s3) struct Profile {
    name: String,
    /// Whether the environment names the profile, so that it must be there.
    is_named: bool,
    credentials: Option<PathBuf>,
    config: Option<PathBuf>,
}

/// What a profile has of ways to get keys.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::storage::s3) enum Source {
    Keys { key: String, secret: String, token: Option<String> },
    WebIdentity { role: String, token_file: String, session: Option<String> },
    Nothing,
}

impl Profile {
    /// The profile that the environment names, else `default`.
    pub(in crate::storage::s3) fn of(env: Environment<'_>) -> Self {
        let named = env.text("AWS_PROFILE").or_else(|| env.text("AWS_DEFAULT_PROFILE"));
        let home = |name: &str| env.text("HOME").map(|home| PathBuf::from(home).join(".aws").join(name));
        let file = |variable: &str, name: &str| env.text(variable).map(PathBuf::from).or_else(|| home(name));
        Self {
            is_named: named.is_some(),
            name: named.unwrap_or_else(|| "default".to_owned()),
            credentials: file("AWS_SHARED_CREDENTIALS_FILE", "credentials"),
            config: file("AWS_CONFIG_FILE", "config"),
        }
    }

    /// The files, whether they are there or not.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        [&self.credentials, &self.config].into_iter().flatten().cloned().collect()
    }

    /// The bucket's region, if the profile has one.
    pub(in crate::storage::s3) fn region(&self) -> Option<String> {
        let (credentials, config) = self.read().ok()?;
        [credentials, config].into_iter().flatten().find_map(|section| section.get("region").cloned())
    }

    /// What the profile gives keys by.
    pub(super) fn source(&self) -> Result<Source, String> {
        let (credentials, config) = self.read()?;
        if self.is_named && credentials.is_none() && config.is_none() {
            let files: Vec<String> = self.files().iter().map(|file| file.display().to_string()).collect();
            return Err(format!("AWS_PROFILE: there is no profile {:?} in {}", self.name, files.join(" and ")));
        }
        let sections = [credentials.unwrap_or_default(), config.unwrap_or_default()];
        // Both keys of one file: a half of each would be of two pairs.
        for section in &sections {
            if let (Some(key), Some(secret)) = (section.get("aws_access_key_id"), section.get("aws_secret_access_key"))
            {
                let token = section.get("aws_session_token").cloned();
                return Ok(Source::Keys { key: key.clone(), secret: secret.clone(), token });
            }
        }
        let text = |name: &str| sections.iter().find_map(|section| section.get(name).cloned());
        if let (Some(role), Some(token_file)) = (text("role_arn"), text("web_identity_token_file")) {
            return Ok(Source::WebIdentity { role, token_file, session: text("role_session_name") });
        }
        match UNSUPPORTED.into_iter().find(|name| text(name).is_some()) {
            Some(name) => Err(format!("the AWS profile {:?} has {name}, which is not supported", self.name)),
            None => Ok(Source::Nothing),
        }
    }

    /// The profile's sections of both files.
    fn read(&self) -> Result<(Option<Section>, Option<Section>), String> {
        let credentials = section(self.credentials.as_ref(), &self.name)?;
        let name = if self.name == "default" { self.name.clone() } else { format!("profile {}", self.name) };
        Ok((credentials, section(self.config.as_ref(), &name)?))
    }
}

impl Source {
    /// The keys that stand in the profile.
    pub(super) fn keys(&self) -> Option<Credentials> {
        match self {
            Self::Keys { key, secret, token: Some(token) } => Some(Credentials::new_with_token(key, secret, token)),
            Self::Keys { key, secret, token: None } => Some(Credentials::new(key, secret)),
            _ => None,
        }
    }
}

/// What a profile may have in place of keys, and the agent can't use.
const UNSUPPORTED: [&str; 5] =
    ["source_profile", "credential_source", "credential_process", "sso_session", "sso_start_url"];

/// Names and values of a section; names in lower case.
type Section = BTreeMap<String, String>;

/// A section of a file; a file that is not there has none.
fn section(file: Option<&PathBuf>, name: &str) -> Result<Option<Section>, String> {
    let Some(file) = file.filter(|file| file.exists()) else { return Ok(None) };
    Ok(parse(&watched::text(file)?, name))
}

/// Reads one section of a file in AWS's form of INI. What is indented belongs to the value above it and is left out.
fn parse(text: &str, wanted: &str) -> Option<Section> {
    let mut found: Option<Section> = None;
    let mut is_wanted = false;
    for line in text.lines().filter(|line| !line.starts_with([' ', '\t', '#', ';'])) {
        let line = uncommented(line).trim_end();
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            is_wanted = name.split_whitespace().eq(wanted.split_whitespace());
            if is_wanted {
                found.get_or_insert_default();
            }
            continue;
        }
        let Some((name, value)) = line.split_once('=').filter(|_| is_wanted) else { continue };
        let (name, value) = (name.trim().to_ascii_lowercase(), value.trim().to_owned());
        if let Some(section) = found.as_mut().filter(|_| !value.is_empty()) {
            section.insert(name, value);
        }
    }
    found
}

/// A line without a comment at its end, which begins behind a space.
fn uncommented(line: &str) -> &str {
    [" #", " ;", "\t#", "\t;"].into_iter().filter_map(|mark| line.find(mark)).min().map_or(line, |end| &line[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    const CREDENTIALS: &str = "# a comment\n[default]\naws_access_key_id = K\naws_secret_access_key=S/+=x # ours\n\
        s3 =\n  aws_access_key_id = nested\n\n[other]\nAWS_ACCESS_KEY_ID=O\r\naws_secret_access_key = P\r\naws_session_token = T\n\
        [half]\naws_access_key_id=H\n";
    const CONFIG: &str = "[default]\nregion = eu-west-1\n[profile  other]\nregion=us-west-2\n[other]\nregion = wrong\n\
        [profile irsa]\nrole_arn = arn\nweb_identity_token_file = /t\n[profile chain]\nrole_arn = arn\nsource_profile = default\n\
        [profile half]\naws_secret_access_key=X\n[profile empty]\nregion =\n";

    fn profile(test: &str, name: &str) -> (Result<Source, String>, Option<String>) {
        let folder = std::env::temp_dir().join(format!("kserve-agent-profile-{}-{test}", std::process::id()));
        std::fs::create_dir_all(folder.join(".aws")).unwrap();
        std::fs::write(folder.join(".aws/credentials"), CREDENTIALS).unwrap();
        std::fs::write(folder.join(".aws/config"), CONFIG).unwrap();
        let read = |variable: &str| match variable {
            "HOME" => Some(folder.to_str().unwrap().to_owned()),
            "AWS_PROFILE" => Some(name.to_owned()),
            _ => None,
        };
        let profile = Profile::of(Environment(&read));
        let found = (profile.source(), profile.region());
        std::fs::remove_dir_all(&folder).unwrap();
        found
    }

    fn keys(key: &str, secret: &str, token: Option<&str>) -> Result<Source, String> {
        Ok(Source::Keys { key: key.to_owned(), secret: secret.to_owned(), token: token.map(str::to_owned) })
    }

    #[test]
    fn a_profile_has_keys_and_a_region() {
        let region = |text: &str| Some(text.to_owned());
        for name in ["", "default"] {
            assert!(profile("default", name) == (keys("K", "S/+=x", None), region("eu-west-1")), "{name:?}");
        }
        assert!(profile("other", "other") == (keys("O", "P", Some("T")), region("us-west-2")));
    }

    #[test]
    fn a_profile_may_take_a_role_by_a_web_identity() {
        let role = Source::WebIdentity { role: "arn".to_owned(), token_file: "/t".to_owned(), session: None };
        assert!(profile("irsa", "irsa").0 == Ok(role));
    }

    #[test]
    fn halves_of_keys_in_two_files_are_no_pair() {
        assert!(profile("half", "half").0 == Ok(Source::Nothing));
        assert!(profile("empty", "empty") == (Ok(Source::Nothing), None));
    }

    #[test]
    fn a_profile_that_is_missing_or_not_supported_is_an_error_that_names_it() {
        let error = |name: &str| profile(name, name).0.err().unwrap();
        assert!(error("absent").starts_with("AWS_PROFILE: there is no profile \"absent\" in "), "{}", error("absent"));
        assert_eq!(error("chain"), "the AWS profile \"chain\" has source_profile, which is not supported");
    }
}
