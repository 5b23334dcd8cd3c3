//! A payload event, and how CloudEvents writes it: binary mode over HTTP (SPEC L1, L2).
//!
//! The attributes are header fields, the payload is the body. CloudEvents' HTTP binding (§3.1.3.2) percent-encodes what a
//! field can't carry: control characters and all that is not ASCII. It asks for more, spaces and quotes, which stay as
//! they are because the Go agent's consumers expect them so.
//!
//! Not here: where payloads come from ([`super::tap`]), and who sends them ([`super::deliver`]).

use std::borrow::Cow;
use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Map, Value as Json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::retry::Attempts;
use super::room::Place;
use super::spool::segment::EntryRef;
use crate::config::{LOG_EVENT_BYTES, LoggerConfig};
use crate::ops::metrics::label;

label! {
    /// Whether a payload is a request or a response.
    pub(crate) Type as "type" {
        /// What the client sent.
        Request = "request",
        /// What the client got.
        Response = "response",
    }
}

/// One payload and what is said about it.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) receipt: Receipt,
    /// Names the request; its two events share it.
    pub(crate) id: Arc<str>,
    /// When the payload was whole.
    pub(crate) time: SystemTime,
    /// Of the message; empty: it had none.
    pub(crate) content_type: Box<str>,
    /// `Content-Encoding` of the message, whose payload is kept as it passed; empty: it had none.
    pub(crate) content_encoding: Box<str>,
    /// What ties the request to others; `None`: nothing does.
    pub(crate) context: Option<Arc<Context>>,
    /// A JSON object of header names to lists of values, which the two events share.
    pub(crate) metadata: Arc<str>,
    /// Of the response.
    pub(crate) status: Option<u16>,
    pub(crate) payload: Vec<u8>,
}

/// Fields of a request that tie it to a trace, which its two events share. Empty: it had none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Context {
    /// `X-Request-Id`.
    pub(crate) request_id: Box<str>,
    /// W3C Trace Context.
    pub(crate) traceparent: Box<str>,
    /// The same.
    pub(crate) tracestate: Box<str>,
}

/// What is left of an event when its payload is on its way: dropped when it is done.
#[derive(Debug)]
pub(crate) struct Receipt {
    pub(crate) of: Type,
    /// The room that it takes of the queue.
    pub(crate) place: Place,
    /// Where it lies on disk.
    pub(crate) entry: Option<EntryRef>,
    /// It was tried before it was read from there.
    pub(crate) attempts: Option<Attempts>,
}

/// What all events of the agent have in common.
#[derive(Debug)]
pub(crate) struct Attributes {
    common: Vec<(&'static str, String)>,
    /// Responses say their status, as others than 200 are logged too.
    with_status: bool,
}

impl Event {
    /// What an event counts for in the queue besides its payload.
    pub(crate) fn overhead(texts: [&str; 4], context: Option<&Context>) -> usize {
        let context = context.map_or(0, Context::bytes);
        LOG_EVENT_BYTES + texts.iter().map(|text| text.len()).sum::<usize>() + context
    }
}

impl Context {
    /// Returns the context, or `None` if there is nothing in it.
    pub(crate) fn new(request_id: Box<str>, traceparent: Box<str>, tracestate: Box<str>) -> Option<Arc<Self>> {
        let context = Self { request_id, traceparent, tracestate };
        (context.bytes() > 0).then(|| Arc::new(context))
    }

    fn bytes(&self) -> usize {
        self.request_id.len() + self.traceparent.len() + self.tracestate.len()
    }

    /// CloudEvents extensions, as header fields.
    fn fields(&self) -> [(&'static str, &str); 3] {
        [
            ("Ce-Requestid", &*self.request_id),
            ("Ce-Traceparent", &*self.traceparent),
            ("Ce-Tracestate", &*self.tracestate),
        ]
    }
}

impl Receipt {
    /// The event is delivered or given up: nothing of it is needed any more. One that is dropped on any other way is not
    /// lost: a thread that panics, a queue that nobody reads.
    pub(crate) fn settle(self) {
        if let Some(entry) = self.entry {
            entry.acknowledge();
        }
    }

    /// Whether it waits on disk for the next start, should it not be settled.
    pub(crate) fn is_kept(&self) -> bool {
        self.entry.is_some()
    }
}

impl Type {
    /// CloudEvents `type`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Request => "org.kubeflow.serving.inference.request",
            Self::Response => "org.kubeflow.serving.inference.response",
        }
    }
}

impl Attributes {
    /// Those of this configuration.
    pub(crate) fn of(config: &LoggerConfig) -> Self {
        let mut common = vec![
            ("Ce-Specversion", "1.0".to_owned()),
            ("Ce-Source", header_safe(&config.source_uri).into_owned()),
            ("Ce-Inferenceservicename", header_safe(&config.inference_service).into_owned()),
            ("Ce-Namespace", header_safe(&config.namespace).into_owned()),
            ("Ce-Component", header_safe(&config.component).into_owned()),
            ("Ce-Endpoint", header_safe(&config.endpoint).into_owned()),
        ];
        if !config.metadata_annotations.is_empty() {
            let annotations: Map<String, Json> =
                config.metadata_annotations.iter().map(|(key, value)| (key.clone(), Json::from(&**value))).collect();
            common.push(("Ce-Annotations", header_safe(&Json::from(annotations).to_string()).into_owned()));
        }
        if config.sample < 1.0 {
            common.push(("Ce-Sampledrate", sampled_rate(config.sample).to_string()));
        }
        Self { common, with_status: config.all_responses }
    }

    /// Those that are the same in all events, as header fields.
    pub(crate) fn common(&self) -> &[(&'static str, String)] {
        &self.common
    }

    /// Those of one event, as header fields. `now`: when it is sent.
    pub(crate) fn of_event<'e>(
        &self,
        event: &'e Event,
        now: &'e str,
    ) -> impl Iterator<Item = (&'static str, Cow<'e, str>)> {
        let status = event.status.filter(|_| self.with_status);
        [
            ("Ce-Id", header_safe(&event.id)),
            ("Ce-Type", Cow::from(event.receipt.of.name())),
            ("Ce-Time", Cow::from(rfc3339(event.time))),
            ("Ce-Recordedtime", Cow::from(now)),
            ("Ce-Metadata", header_safe(&event.metadata)),
        ]
        .into_iter()
        .chain(status.map(|status| ("Ce-Statuscode", Cow::from(status.to_string()))))
        .chain(
            // The body is coded as the field says (RFC 9110 §8.4), and the extension stays when a broker drops the field.
            [
                ("Content-Type", &*event.content_type),
                ("Content-Encoding", &*event.content_encoding),
                ("Ce-Contentencoding", &*event.content_encoding),
            ]
            .into_iter()
            .chain(event.context.iter().flat_map(|context| context.fields()))
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| (name, header_safe(value))),
        )
    }
}

/// A time as RFC 3339 has it, in UTC with nanoseconds.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    // It fails only for years that have more than four digits.
    OffsetDateTime::from(time).format(&Rfc3339).unwrap_or_default()
}

/// Of how many requests one is logged: CloudEvents' `sampledrate`, a whole number.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float to integer cast saturates")]
fn sampled_rate(share: f64) -> u32 {
    (1.0 / share).round() as u32
}

/// A text as the value of a header field: what it can't hold is percent-encoded.
pub(crate) fn header_safe(text: &str) -> Cow<'_, str> {
    let is_safe = |byte: u8| (b' '..=b'~').contains(&byte);
    if text.bytes().all(is_safe) {
        return Cow::from(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for byte in text.bytes() {
        if is_safe(byte) {
            safe.push(char::from(byte));
        } else {
            let digit = |half: u8| char::from(b"0123456789ABCDEF"[usize::from(half)]);
            safe.extend(['%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
    Cow::from(safe)
}

#[cfg(test)]
pub(in crate::logger) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::logger::room::tests::place;
    use crate::logger::tests::config;

    pub(in crate::logger) fn event(of: Type) -> Event {
        Event {
            receipt: Receipt { of, place: place(), entry: None, attempts: None },
            id: Arc::from("abc"),
            time: SystemTime::UNIX_EPOCH + Duration::new(1_800_000_000, 5_000_000),
            content_type: Box::from("application/json"),
            content_encoding: Box::from(""),
            context: None,
            metadata: Arc::from("{}"),
            status: (of == Type::Response).then_some(200),
            payload: Vec::new(),
        }
    }

    fn fields(config: &LoggerConfig, event: &Event) -> Vec<(String, String)> {
        let attributes = Attributes::of(config);
        let common = attributes.common().iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        let now = rfc3339(event.time + Duration::from_millis(1));
        let own = attributes.of_event(event, &now).map(|(name, value)| (name.to_owned(), value.into_owned()));
        common.chain(own).collect()
    }

    fn has(fields: &[(String, String)], name: &str) -> Option<String> {
        fields.iter().find(|field| field.0 == name).map(|field| field.1.clone())
    }

    #[test]
    fn an_event_has_the_attributes_that_the_go_agent_gives_it() {
        let fields = fields(&config("http://sink"), &event(Type::Request));
        for (name, value) in [
            ("Ce-Specversion", "1.0"),
            ("Ce-Id", "abc"),
            ("Ce-Type", "org.kubeflow.serving.inference.request"),
            ("Ce-Source", "http://localhost:9081/"),
            ("Ce-Time", "2027-01-15T08:00:00.005Z"),
            ("Ce-Recordedtime", "2027-01-15T08:00:00.006Z"),
            ("Ce-Inferenceservicename", "iris"),
            ("Ce-Namespace", "prod"),
            ("Ce-Component", "predictor"),
            ("Ce-Endpoint", "default"),
            ("Ce-Metadata", "{}"),
            ("Content-Type", "application/json"),
        ] {
            assert_eq!(has(&fields, name).as_deref(), Some(value), "{name}");
        }
        assert_eq!(fields.len(), 12, "{fields:?}");
    }

    #[test]
    fn what_was_asked_for_is_added() {
        let config = LoggerConfig {
            metadata_annotations: vec![("owner".to_owned(), "b".to_owned()), ("team".to_owned(), "a".to_owned())],
            all_responses: true,
            sample: 0.3,
            ..config("http://sink")
        };
        let fields = fields(&config, &event(Type::Response));
        assert_eq!(has(&fields, "Ce-Annotations").as_deref(), Some(r#"{"owner":"b","team":"a"}"#));
        assert_eq!(has(&fields, "Ce-Statuscode").as_deref(), Some("200"));
        assert_eq!(has(&fields, "Ce-Sampledrate").as_deref(), Some("3"));
        assert_eq!(has(&self::fields(&config, &event(Type::Request)), "Ce-Statuscode"), None);
    }

    #[test]
    fn a_message_without_a_content_type_makes_an_event_without_one() {
        let event = Event { content_type: Box::from(""), ..event(Type::Request) };
        assert_eq!(has(&fields(&config("http://sink"), &event), "Content-Type"), None);
    }

    #[test]
    fn an_event_says_how_its_payload_is_coded_and_what_its_request_belongs_to() {
        let context = Context::new("r".into(), "00-1".into(), "".into());
        let event = Event { content_encoding: Box::from("gzip"), context, ..event(Type::Request) };
        let fields = fields(&config("http://sink"), &event);
        for (name, value) in [
            ("Content-Encoding", Some("gzip")),
            ("Ce-Contentencoding", Some("gzip")),
            ("Ce-Requestid", Some("r")),
            ("Ce-Traceparent", Some("00-1")),
            ("Ce-Tracestate", None),
        ] {
            assert_eq!(has(&fields, name).as_deref(), value, "{name}");
        }
        assert_eq!(Context::new("".into(), "".into(), "".into()), None);
    }

    #[test]
    fn what_a_field_cannot_hold_is_percent_encoded() {
        for (text, safe) in [
            ("plain \"text\" 100%", "plain \"text\" 100%"),
            ("a\r\nX: y", "a%0D%0AX: y"),
            ("ü\0\u{7f}", "%C3%BC%00%7F"),
            ("", ""),
        ] {
            assert_eq!(header_safe(text), safe);
        }
    }
}
