//! The way to an object store: events are gathered into batches, made into a file and put into the bucket (SPEC L8).
//!
//! ```text
//!   events ─▶ Gatherer: one open batch ─ complete, or due ─▶ couriers: put, the file made on the way ─▶ bucket
//! ```
//!
//! Architecture Invariant: what waits for a store is events, which the queue counts, and no file. A file is made out of them
//! while it is sent, and again with the next attempt. Only what another marshaller has answered is kept, takes the place of
//! the payloads that it was made of, and is counted as they were.
//!
//! Not here: the store ([`crate::storage`]), the formats ([`super::marshal`]).

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, never, select};
use jiff::Timestamp;

use super::Env;
use super::batches::Batches;
use super::carrier::{Cargo, Carrier, Cut, Landing, Said, counts};
use super::event::{Event, Receipt, Type};
use super::marshal::{File, extension, media};
use super::marshaller::{Made, Marshaller, Refused};
use super::record::{Common, Record, Url, object_key};
use super::retry::Verdict;
use crate::config::{LOG_CA_CERT_DIR, LOG_FORBIDDEN_FOR, LOG_OBJECT_BYTES, LoggerConfig, StoreConfig};
use crate::ops::tls::{Roots, tls};
use crate::storage::{Failure, Kind, Store};

/// A bucket, which all delivery threads share.
pub(crate) struct Depot {
    /// Opened when it is needed, so that whatever is wrong with it is tried again.
    way: Mutex<Option<Arc<Way>>>,
    logger: LoggerConfig,
    env: Env,
    name: String,
    config: StoreConfig,
    /// What all records have in common.
    common: Common,
    limit: Duration,
}

/// A bucket that can be used, and who makes files for it.
struct Way {
    store: Store,
    marshaller: Marshaller,
}

/// One thread's way to it.
pub(super) struct Porter(pub(super) Arc<Depot>);

/// Events that share an object.
pub(super) struct Batch {
    events: Vec<Event>,
    /// Of their payloads.
    bytes: usize,
    /// What another marshaller has made of them; the payloads were let go then.
    made: Option<Made>,
    /// When the store first forbade it.
    forbidden_at: Option<Instant>,
}

/// The thread that gathers events into batches.
pub(crate) struct Gatherer {
    events: Receiver<Vec<Event>>,
    couriers: Sender<Vec<Batch>>,
    batches: Batches<Event>,
}

impl Depot {
    /// The bucket of this configuration, with credentials from the environment. Where it can't be used that is said, and events
    /// wait for it.
    pub(super) fn new(config: &LoggerConfig, store: &StoreConfig, env: Env) -> Arc<Self> {
        let depot = Self {
            way: Mutex::default(),
            logger: config.clone(),
            env,
            // Behind a question mark may be a signature.
            name: config.url.split('?').next().unwrap_or_default().to_owned(),
            config: store.clone(),
            common: common(config),
            limit: config.client_timeout,
        };
        if let Err(why) = depot.way() {
            log::error!("payload log: {why}; events wait, and it is tried again");
        }
        Arc::new(depot)
    }

    fn way(&self) -> Result<Arc<Way>, String> {
        let mut way = self.way.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(way) = &*way {
            return Ok(Arc::clone(way));
        }
        let opened = Arc::new(Way::open(&self.logger, &self.config, self.env)?);
        *way = Some(Arc::clone(&opened));
        Ok(opened)
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    fn records<'b>(&'b self, events: &'b [Event]) -> impl Iterator<Item = Record<'b>> + Clone {
        events.iter().map(|event| Record {
            common: &self.common,
            bytes: &event.payload,
            content_type: &event.content_type,
            req_type: event.receipt.of.name(),
            id: &event.id,
            metadata: &event.metadata,
            // It fails only for years that have more than four digits.
            occurred_at: Timestamp::try_from(event.time).unwrap_or_default(),
        })
    }

    fn put(&self, batch: &mut Batch) -> Result<(), Outcome> {
        let way = self.way().map_err(|why| Outcome::Later { why, after: None, has_answered: false })?;
        let stored = match &way.marshaller {
            Marshaller::BuiltIn(format) => {
                let mut file = File::new(*format, self.records(&batch.events));
                self.store(&way, batch, extension(*format), (file.length(), &mut file))
            }
            Marshaller::Service(client) => {
                if batch.made.is_none() {
                    let made = client.marshal(File::array(self.records(&batch.events))).map_err(Outcome::of)?;
                    batch.keep(made);
                }
                let Some(Made { bytes, extension }) = &batch.made else { return Ok(()) };
                self.store(&way, batch, extension, (bytes.len() as u64, &mut &bytes[..]))
            }
        };
        stored.map_err(|failure| match failure.kind {
            Kind::Transient { after } => {
                let has_answered = failure.has_answered();
                Outcome::Later { why: failure.reason, after, has_answered }
            }
            // A permission that was just given may not have spread yet.
            Kind::Refused
                if failure.is_forbidden()
                    && batch.forbidden_at.get_or_insert_with(Instant::now).elapsed() < LOG_FORBIDDEN_FOR =>
            {
                Outcome::Later { why: failure.reason, after: None, has_answered: true }
            }
            Kind::Changed | Kind::Refused => Outcome::Never(failure.reason),
        })
    }

    /// Puts a file of so many bytes into the bucket.
    fn store(
        &self,
        way: &Way,
        batch: &Batch,
        extension: &str,
        (length, file): (u64, &mut dyn Read),
    ) -> Result<(), Failure> {
        let Some(first) = self.records(&batch.events).next() else { return Ok(()) };
        // The store puts its own prefix before it.
        let key = object_key("", &self.config.path, first, extension);
        way.store.put(&key, media(extension), length, file)
    }
}

impl Batch {
    /// Takes the file for the payloads, and its room for theirs.
    fn keep(&mut self, made: Made) {
        for (index, event) in self.events.iter_mut().enumerate() {
            let payload = std::mem::take(&mut event.payload);
            let place = &mut event.receipt.place;
            // Before any is given up, so that nobody else gets it.
            if index == 0 {
                place.take(made.bytes.capacity());
            }
            place.shrink_to(place.bytes().saturating_sub(payload.capacity()));
        }
        self.made = Some(made);
    }
}

impl Way {
    fn open(config: &LoggerConfig, store_config: &StoreConfig, env: Env) -> Result<Self, String> {
        if store_config.path.is_empty() {
            return Err("--log-url is a bucket, into which nothing is put without --log-store-path".to_owned());
        }
        let store = Store::open(&config.url, &env).map_err(|why| format!("--log-url: {why}"))?;
        let needs_tls = store_config.marshaller_url.starts_with("https://");
        let roots = if config.tls_skip_verify { Roots::Unverified } else { Roots::System };
        let tls = needs_tls.then(|| tls(&roots)).transpose();
        let tls = tls.map_err(|why| format!("--log-marshaller-url: {why}"))?;
        let marshaller = Marshaller::new(store_config, config.client_timeout, tls.as_ref())?;
        Ok(Self { store, marshaller })
    }
}

/// Why a batch was not stored.
enum Outcome {
    /// `has_answered`: and not merely was not to be reached.
    Later {
        why: String,
        after: Option<Duration>,
        has_answered: bool,
    },
    Never(String),
}

impl Outcome {
    fn of(Refused { verdict, why, has_answered }: Refused) -> Self {
        match verdict {
            Verdict::Later { after } => Self::Later { why, after, has_answered },
            Verdict::Delivered | Verdict::Rejected => Self::Never(why),
        }
    }
}

/// What all records of a configuration have in common.
fn common(config: &LoggerConfig) -> Common {
    // As it was given, which may be in a folder of that folder.
    let cert_name = config.ca_cert_file.strip_prefix(LOG_CA_CERT_DIR).unwrap_or(&config.ca_cert_file);
    let annotations: BTreeMap<_, _> = config.metadata_annotations.iter().cloned().collect();
    Common {
        // Behind a question mark may be a signature, which is not for those who read records.
        url: Url::new(config.url.split('?').next().unwrap_or_default()),
        source_uri: Url::new(&config.source_uri),
        inference_service: config.inference_service.clone(),
        namespace: config.namespace.clone(),
        component: config.component.clone(),
        endpoint: config.endpoint.clone(),
        // A map of text always has a JSON form.
        annotations: serde_json::to_string(&annotations).unwrap_or_default(),
        cert_name: cert_name.to_string_lossy().into_owned(),
        tls_skip_verify: config.tls_skip_verify,
    }
}

impl Carrier for Porter {
    type Cargo = Batch;

    fn name(&self) -> &str {
        &self.0.name
    }

    fn limit(&self) -> Duration {
        self.0.limit
    }

    fn window(&mut self) -> usize {
        1
    }

    fn fly<'c>(
        &mut self,
        batches: impl ExactSizeIterator<Item = &'c mut Batch>,
        _: Duration,
        mut land: impl FnMut(Landing),
    ) -> Result<(), Cut> {
        for batch in batches {
            let (verdict, said) = match self.0.put(batch) {
                Ok(()) => (Verdict::Delivered, String::new()),
                Err(Outcome::Never(why)) => (Verdict::Rejected, why),
                // Who has answered may take the others.
                Err(Outcome::Later { why, after, has_answered: true }) => (Verdict::Later { after }, why),
                Err(Outcome::Later { why, after, .. }) => return Err(Cut::Destination { why, after }),
            };
            land(Landing { verdict, said: Said::Text(said), at: Instant::now() });
        }
        Ok(())
    }
}

impl Cargo for Batch {
    fn bytes(&self) -> usize {
        self.bytes
    }

    fn counts(&self) -> [(Type, u64); 2] {
        counts(self.events.iter().map(|event| &event.receipt))
    }

    fn receipts(self) -> impl Iterator<Item = Receipt> {
        self.events.into_iter().map(|event| event.receipt)
    }
}

impl Gatherer {
    /// `most`: bytes that events may hold.
    pub(super) fn new(depot: &Depot, events: Receiver<Vec<Event>>, couriers: Sender<Vec<Batch>>, most: usize) -> Self {
        let StoreConfig { batch_size, batch_interval, .. } = depot.config;
        // A batch that never completes must not have all the room.
        let batches = Batches::new(batch_size, batch_interval, LOG_OBJECT_BYTES.min(most / 2));
        Self { events, couriers, batches }
    }

    /// Gathers until the workers are gone; the last batch leaves as it is.
    pub(crate) fn run(mut self) {
        loop {
            let due = self.batches.next_due().map_or_else(never, crossbeam_channel::at);
            select! {
                recv(self.events) -> events => match events {
                    Ok(events) => self.gather(events),
                    Err(_) => break,
                },
                recv(due) -> _ => {}
            }
            if let Some(events) = self.batches.due(Instant::now()) {
                self.send(events);
            }
        }
        if let Some(events) = self.batches.finish() {
            self.send(events);
        }
    }

    fn gather(&mut self, events: Vec<Event>) {
        for event in events {
            let bytes = event.receipt.place.bytes();
            if let Some(events) = self.batches.add(event, bytes, Instant::now()) {
                self.send(events);
            }
        }
    }

    fn send(&self, events: Vec<Event>) {
        let bytes = events.iter().map(|event| event.payload.len()).sum();
        let batch = Batch { events, bytes, made: None, forbidden_at: None };
        // If nobody delivers any more the time is over, and what is on disk stays for the next start.
        let _ = self.couriers.send(vec![batch]);
    }
}
