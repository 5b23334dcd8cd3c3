//! What the model server is told: the model repository extension of the Open Inference Protocol (SPEC M2, M3).
//!
//! Not here: when it is told, and again.

use std::collections::BTreeSet;
use std::num::NonZeroU16;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use ureq::Agent;
use ureq::http::Request;

use crate::config::{CONNECT_TIMEOUT, HEAD_BYTES, MODEL_ANSWER_BYTES, MODEL_INDEX_TIMEOUT};
use crate::ops::build::{NAME, VERSION};
use crate::ops::client;

/// A client of the model server's repository.
#[derive(Debug, Clone)]
pub(super) struct Repository {
    agent: Agent,
    /// `http://127.0.0.1:<component-port>/v2/repository`
    base: String,
    /// Longest answer to a load or an unload.
    load_timeout: Duration,
}

#[derive(Deserialize)]
struct Listed {
    name: String,
    #[serde(default)]
    state: String,
}

/// What is left as it is in a segment of a path (RFC 3986 §2.3).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// Characters of what the server says that go into a reason.
const SAID: usize = 200;

impl Repository {
    pub(super) fn new(port: NonZeroU16, load_timeout: Duration) -> Self {
        let config = client::config()
            .accept("")
            .user_agent(format!("{NAME}/{VERSION}"))
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .max_response_header_size(HEAD_BYTES)
            .build();
        Self { agent: config.into(), base: format!("http://127.0.0.1:{port}/v2/repository"), load_timeout }
    }

    /// Lets the server load a model.
    ///
    /// # Errors
    /// When it does not say that it has; the text says why.
    pub(super) fn load(&self, name: &str) -> Result<(), String> {
        let (status, said) = self.post(&of_model(name, "load"), self.load_timeout)?;
        if (200..300).contains(&status) { Ok(()) } else { Err(refused(status, &said)) }
    }

    /// Lets the server unload a model. That it has none of this name is as good, and so is that it can't unload: nobody could
    /// do more.
    ///
    /// # Errors
    /// When it may still have it.
    pub(super) fn unload(&self, name: &str) -> Result<(), String> {
        let (status, said) = self.post(&of_model(name, "unload"), self.load_timeout)?;
        if matches!(status, 200..=299 | 400 | 404 | 405 | 501) { Ok(()) } else { Err(refused(status, &said)) }
    }

    /// The models that the server calls ready; `None`: it does not say.
    pub(super) fn ready(&self) -> Option<BTreeSet<String>> {
        let (status, said) = self.post("/index", MODEL_INDEX_TIMEOUT).ok()?;
        let listed: Vec<Listed> = serde_json::from_slice(&said).ok().filter(|_| status == 200)?;
        // Triton says nothing of models that are not there; MLServer and the KServe SDK say READY.
        Some(listed.into_iter().filter(|model| model.state == "READY").map(|model| model.name).collect())
    }

    fn post(&self, path: &str, limit: Duration) -> Result<(u16, Vec<u8>), String> {
        let request = Request::post(format!("{}{path}", self.base)).header("content-type", "application/json");
        let request = request.body("{}").map_err(|error| error.to_string())?;
        let request = self.agent.configure_request(request).timeout_global(Some(limit)).build();
        let mut response = self.agent.run(request).map_err(|error| format!("model server: {error}"))?;
        let said = response.body_mut().with_config().limit(MODEL_ANSWER_BYTES).read_to_vec();
        Ok((response.status().as_u16(), said.unwrap_or_default()))
    }
}

fn of_model(name: &str, action: &str) -> String {
    format!("/models/{}/{action}", utf8_percent_encode(name, SEGMENT))
}

fn refused(status: u16, said: &[u8]) -> String {
    let said: String = String::from_utf8_lossy(said).chars().filter(|c| !c.is_control()).take(SAID).collect();
    format!("model server: status {status}: {said}")
}
