//! Addresses of a host without those of this link alone (SPEC M14): a model's URL, or a redirect, must not lead to the metadata
//! servers of clouds, which give the node's credentials to whoever asks from it.
//!
//! Not here: which requests this is for.

use std::io;
use std::net::IpAddr;

use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// Resolves names and addresses; `is_open`: those of this link too.
#[derive(Debug)]
pub(super) struct Addresses {
    is_open: bool,
    by: DefaultResolver,
}

impl Addresses {
    pub(super) fn new(is_open: bool) -> Self {
        Self { is_open, by: DefaultResolver::default() }
    }
}

impl Resolver for Addresses {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let found = self.by.resolve(uri, config, timeout)?;
        if self.is_open {
            return Ok(found);
        }
        let mut far = self.empty();
        found.iter().filter(|address| !is_link_local(address.ip())).for_each(|address| far.push(*address));
        if far.is_empty() {
            return Err(Error::Io(io::Error::new(io::ErrorKind::Unsupported, LINK_LOCAL)));
        }
        Ok(far)
    }
}

const LINK_LOCAL: &str = "a link-local address is no source of models";

fn is_link_local(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_the_link_are_known_in_every_form() {
        for (address, is_local) in [
            ("169.254.169.254", true),
            ("::ffff:169.254.169.254", true),
            ("fe80::1", true),
            ("169.253.1.1", false),
            ("127.0.0.1", false),
            ("10.0.0.1", false),
            ("fd00:ec2::254", false),
        ] {
            assert_eq!(is_link_local(address.parse().unwrap()), is_local, "{address}");
        }
    }
}
