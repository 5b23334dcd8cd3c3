//! Where in which store: the URLs of buckets, taken apart.
//!
//! Keys in `s3`, `gs` and `abfs` URLs stand for themselves, as for `aws`, `gcloud` and KServe: `%20` is three characters.
//! An `https` URL of Azure is a URL, its path is decoded.
//!
//! Not here: how a service is reached, and with whose rights.

use super::object::{is_key, is_path};

/// A folder of a bucket, or one object: only the store knows which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) service: Service,
    /// Of Azure the container.
    pub(super) bucket: String,
    /// Without a slash at either end; empty for the whole bucket.
    pub(super) prefix: String,
}

/// Whose store it is.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Service {
    S3,
    Gcs,
    Azure {
        /// Host of the account's blobs, if the URL says which account: `account.blob.core.windows.net`.
        host: Option<String>,
        /// A shared access signature: a query that is a right in itself.
        sas: Option<String>,
    },
}

impl Address {
    /// Takes a URL apart. The error does not quote it, as it may hold a signature.
    pub(super) fn parse(url: &str) -> Result<Self, String> {
        let (scheme, rest) = url.split_once("://").ok_or(ALLOWED)?;
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        match scheme.to_ascii_lowercase().as_str() {
            "s3" => Self::new(Service::S3, host, path),
            "gs" => Self::new(Service::Gcs, host, path),
            "abfs" | "abfss" => {
                let (container, account) = host.split_once('@').map_or((host, None), |(name, host)| (name, Some(host)));
                let host = account.map(blob_host).transpose()?;
                Self::new(Service::Azure { host, sas: None }, container, path)
            }
            "https" => {
                let (path, sas) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
                let host = Some(blob_host(host).map_err(|_| ALLOWED)?);
                let sas = sas.filter(|query| !query.is_empty()).map(checked_query).transpose()?;
                let path = percent_encoding::percent_decode_str(path).decode_utf8().map_err(|_| ALLOWED)?;
                let (container, prefix) = path.split_once('/').unwrap_or((&path, ""));
                Self::new(Service::Azure { host, sas }, container, prefix)
            }
            _ => Err(ALLOWED.to_owned()),
        }
    }

    fn new(service: Service, bucket: &str, prefix: &str) -> Result<Self, String> {
        let is_named = |byte: u8| byte.is_ascii_alphanumeric() || b"-._$".contains(&byte);
        if !(1..=BUCKET_BYTES).contains(&bucket.len()) || !bucket.bytes().all(is_named) || !is_path(bucket) {
            return Err(format!("the bucket's name is up to {BUCKET_BYTES} letters, digits, dots and hyphens"));
        }
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
        if !is_key(prefix) {
            return Err("the path in the bucket is names between slashes, none of them . or ..".to_owned());
        }
        Ok(Self { service, bucket: bucket.to_owned(), prefix: prefix.to_owned() })
    }

    /// Whether a URL looks like that of a store, and not like any web server's.
    pub(super) fn is_one(url: &str) -> bool {
        let Some((scheme, rest)) = url.split_once("://") else { return false };
        let host = rest.split(['/', '?']).next().unwrap_or_default();
        match scheme.to_ascii_lowercase().as_str() {
            "s3" | "gs" | "abfs" | "abfss" => true,
            "https" => blob_host(host).is_ok(),
            _ => false,
        }
    }

    /// What people call it; without a signature.
    pub(super) fn text(&self) -> String {
        let Self { service, bucket, prefix } = self;
        match service {
            Service::S3 => format!("s3://{bucket}/{prefix}"),
            Service::Gcs => format!("gs://{bucket}/{prefix}"),
            Service::Azure { host: Some(host), .. } => format!("https://{host}/{bucket}/{prefix}"),
            Service::Azure { host: None, .. } => format!("abfs://{bucket}/{prefix}"),
        }
    }
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::S3 => "S3",
            Self::Gcs => "Gcs",
            Self::Azure { .. } => "Azure",
        })
    }
}

const ALLOWED: &str = "a bucket as s3://bucket/path, gs://bucket/path, abfs://container@account.dfs.core.windows.net/path \
                       or https://account.blob.core.windows.net/container/path";

/// The longest name of a bucket, Google's with a domain in it.
const BUCKET_BYTES: usize = 222;

/// An account's host for blobs, of any Azure cloud: the Data Lake's host (`dfs`) is another door to the same objects.
fn blob_host(host: &str) -> Result<String, String> {
    let wrong = || "the account is a name, or a host as account.dfs.core.windows.net".to_owned();
    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
    let (account, cloud) = host.split_once('.').unwrap_or((host, "blob.core.windows.net"));
    let cloud = cloud.strip_prefix("dfs.core.").or_else(|| cloud.strip_prefix("blob.core.")).ok_or_else(wrong)?;
    if account.is_empty() || cloud.is_empty() || !host.bytes().all(is_host) {
        return Err(wrong());
    }
    Ok(format!("{account}.blob.core.{cloud}"))
}

/// A query as it goes into a request.
fn checked_query(query: &str) -> Result<String, String> {
    let is_of_query = |byte: u8| byte.is_ascii_graphic() && !b"#\"<>\\^`{|}".contains(&byte);
    let wrong = "the signature behind the ? is percent-encoded, as Azure gives it out";
    if query.bytes().all(is_of_query) { Ok(query.to_owned()) } else { Err(wrong.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn azure(host: Option<&str>, sas: Option<&str>) -> Service {
        Service::Azure { host: host.map(str::to_owned), sas: sas.map(str::to_owned) }
    }

    #[test]
    fn urls_of_every_store_are_taken_apart() {
        const HOST: Option<&str> = Some("acc.blob.core.windows.net");
        for (url, service, bucket, prefix) in [
            ("s3://b", Service::S3, "b", ""),
            ("s3://b/", Service::S3, "b", ""),
            ("S3://my.bucket-1/models/iris/", Service::S3, "my.bucket-1", "models/iris"),
            ("s3://b/a b%20c?d", Service::S3, "b", "a b%20c?d"),
            ("s3://b//p", Service::S3, "b", "/p"),
            ("s3://b/a//p//", Service::S3, "b", "a//p/"),
            ("gs://b_1/m", Service::Gcs, "b_1", "m"),
            ("abfs://c@acc.dfs.core.windows.net/p/q", azure(HOST, None), "c", "p/q"),
            ("abfss://c@acc/p", azure(HOST, None), "c", "p"),
            ("abfs://c/p", azure(None, None), "c", "p"),
            ("https://acc.blob.core.windows.net/c/a%20b", azure(HOST, None), "c", "a b"),
            ("https://acc.blob.core.windows.net/c?sv=1&sig=a%3D", azure(HOST, Some("sv=1&sig=a%3D")), "c", ""),
            ("https://acc.blob.core.windows.net/$root/m?", azure(HOST, None), "$root", "m"),
            ("https://acc.blob.core.chinacloudapi.cn/c", azure(Some("acc.blob.core.chinacloudapi.cn"), None), "c", ""),
        ] {
            let expected = Address { service, bucket: bucket.to_owned(), prefix: prefix.to_owned() };
            let found = Address::parse(url).unwrap();
            assert!(found == expected, "{url}: {found:?}");
            assert!(Address::is_one(url));
        }
    }

    #[test]
    fn what_names_no_bucket_is_refused_and_not_quoted() {
        for url in [
            "",
            "b",
            "s3:/b",
            "s3://",
            "s3:///p",
            "s3://b b/p",
            "s3://../p",
            "s3://b\n",
            "s3://b/../p",
            "s3://b/a/./p",
            "s3://b/a\0",
            "gs://user@b/",
            "abfs://@acc/p",
            "abfs://c@/p",
            "abfs://c@example.com/p",
            "abfs://c@acc.dfs.core./p",
            "abfs://c@acc:80/p",
            "https://example.com/c/p?sig=secret",
            "https://acc.blob.core.windows.net/?sig=secret",
            "https://acc.blob.core.windows.net/c/%ff",
            "https://acc.blob.core.windows.net/c/%2e%2e/p",
            "https://acc.blob.core.windows.net/c?sig=secret secret",
            "https://u:secret@acc.blob.core.windows.net/c",
            "http://acc.blob.core.windows.net/c",
            "file:///p",
        ] {
            let error = Address::parse(url).unwrap_err();
            assert!(!error.contains("secret"), "{url}: {error}");
        }
    }

    #[test]
    fn a_signature_is_in_no_text() {
        let address = Address::parse("https://acc.blob.core.windows.net/c/p?sig=secret").unwrap();
        assert_eq!(address.text(), "https://acc.blob.core.windows.net/c/p");
        assert!(!format!("{address:?}").contains("secret"));
    }

    #[test]
    fn a_web_server_is_no_store() {
        for url in ["https://example.com/model.zip", "http://acc.blob.core.windows.net/c", "hf://o/m", "model", ""] {
            assert!(!Address::is_one(url), "{url}");
        }
    }
}
