//! Requests to a proxy for an `http` URL: their target is the whole URL ("absolute form", RFC 9112 §3.2.2).
//!
//! ureq writes a target that begins with a slash, whatever it is asked for. So the target that it is given is a slash, a
//! mark and the whole URL, and the slash and the mark are taken out where bytes leave for the connection. The mark can't be
//! guessed, so no body has it.
//!
//! Not here: which requests have a proxy.

use std::sync::LazyLock;

use ureq::Error;
use ureq::http::header::{HOST, HeaderValue, PROXY_AUTHORIZATION};
use ureq::http::{Request, Uri};
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};

use super::failure::Failure;
use crate::ops::proxy::Proxy;
use crate::ops::random;

/// In front of the whole URL, with the slash and the space before it.
static MARK: LazyLock<String> = LazyLock::new(|| format!(" /{}", random::uuid().simple()));

/// The longest method of a request here.
const METHOD_BYTES: usize = "DELETE".len();

/// Makes a request for an `http` URL one to its proxy.
pub(super) fn through<B>(request: Request<B>, proxy: &Proxy) -> Result<Request<B>, Failure> {
    let (mut parts, body) = request.into_parts();
    let host = parts.uri.host().unwrap_or_default();
    let authority = match parts.uri.port_u16() {
        Some(port) if port != 80 => format!("{host}:{port}"),
        _ => host.to_owned(),
    };
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    parts.uri = Uri::builder()
        .scheme(if proxy.is_tls { "https" } else { "http" })
        .authority(format!("{}:{}", proxy.host, proxy.port))
        .path_and_query(format!("{}http://{authority}{path}", MARK.trim_start()))
        .build()
        .map_err(|_| Failure::refused("the address is not one that a proxy can be asked for"))?;
    let value = |text: &str| {
        HeaderValue::from_str(text).map_err(|_| Failure::refused("the proxy's user can't be sent in a field"))
    };
    parts.headers.insert(HOST, value(&authority)?);
    if let Some(authorization) = proxy.authorization() {
        parts.headers.insert(PROXY_AUTHORIZATION, value(&authorization)?);
    }
    Ok(Request::from_parts(parts, body))
}

/// Takes the mark out of requests.
#[derive(Debug)]
pub(super) struct AbsoluteForm;

impl<T: Transport> Connector<T> for AbsoluteForm {
    type Out = AbsoluteTransport<T>;

    fn connect(&self, _: &ConnectionDetails<'_>, chained: Option<T>) -> Result<Option<Self::Out>, Error> {
        Ok(chained.map(AbsoluteTransport))
    }
}

/// A connection whose requests lose the mark.
#[derive(Debug)]
pub(super) struct AbsoluteTransport<T>(T);

impl<T: Transport> Transport for AbsoluteTransport<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.0.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let amount = unmark(&mut self.0.buffers().output()[..amount]);
        self.0.transmit_output(amount, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.0.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.0.is_open()
    }

    fn is_tls(&self) -> bool {
        self.0.is_tls()
    }
}

/// Takes the mark out of a request's first line. Returns how many bytes are left.
fn unmark(output: &mut [u8]) -> usize {
    let mark = MARK.as_bytes();
    let begin = &output[..output.len().min(METHOD_BYTES + mark.len())];
    let Some(space) = begin.windows(mark.len()).position(|bytes| bytes == mark) else { return output.len() };
    // The space stays.
    output.copy_within(space + mark.len().., space + 1);
    output.len() - (mark.len() - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_is_taken_out_of_a_head_and_nothing_else_is() {
        let sent = |text: &str| {
            let mut bytes = text.as_bytes().to_vec();
            let length = unmark(&mut bytes);
            String::from_utf8(bytes[..length].to_vec()).unwrap()
        };
        for method in ["GET", "PUT", "POST", "DELETE"] {
            let head = format!("{method}{}http://h/p HTTP/1.1\r\n", *MARK);
            assert_eq!(sent(&head), format!("{method} http://h/p HTTP/1.1\r\n"));
        }
        for other in ["GET /p HTTP/1.1\r\n", "", "G", "a body"] {
            assert_eq!(sent(other), other);
        }
    }
}
