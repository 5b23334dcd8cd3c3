//! The parts of a run. Each starts its own servers and peers, and knows beforehand how many runs it makes.

pub(crate) mod batcher;
pub(crate) mod faults;
pub(crate) mod footprint;
pub(crate) mod kserve;
pub(crate) mod payload;
pub(crate) mod quota;
pub(crate) mod single;
pub(crate) mod traffic;
pub(crate) mod trust;

use std::path::PathBuf;
use std::time::Duration;

use crate::failure::Failure;
use crate::load::{Load, Work};
use crate::model::{Kind, Measured};
use crate::options::Options;
use crate::peer::{Peer, Recipe, find};
use crate::progress::Progress;
use crate::recipes::Kitchen;

/// What all parts share.
pub(crate) struct Bench<'o> {
    pub(crate) options: &'o Options,
    pub(crate) folder: PathBuf,
    pub(crate) measured: Measured,
    pub(crate) progress: Progress,
}

/// What a run adds to the seconds of its load: start and end of the generator.
pub(crate) const OVERHEAD: f64 = 0.15;
/// Connections that nginx and haproxy are to take, but for those of the idle ones.
const CONNECTIONS: usize = 4096;
const FAST: &str = "/v1/models/m:predict";
const IRIS: &str = "/v1/models/iris:predict";

impl<'o> Bench<'o> {
    pub(crate) fn rounds(options: &Options) -> usize {
        options.rounds.unwrap_or(if options.quick { 3 } else { 5 })
    }

    fn kitchen(&self, connections: usize) -> Kitchen<'o> {
        Kitchen { options: self.options, folder: self.folder.clone(), connections }
    }

    fn load(&self, path: &str) -> Load {
        Load { scripts: self.options.peers.clone(), folder: self.folder.clone(), path: path.to_owned() }
    }

    /// Load for the fast server.
    fn fast_load(&self) -> Load {
        self.load(if find("nginx").is_some() { FAST } else { IRIS })
    }

    fn start(&self, recipe: &Recipe) -> Result<Peer, Failure> {
        Ok(Peer::start(recipe, Duration::from_secs(10))?.settle())
    }

    /// Starts what can be started, and notes the rest.
    fn start_all(&mut self, recipes: &[Recipe]) -> Vec<Peer> {
        let mut peers = Vec::new();
        for recipe in recipes {
            match self.start(recipe) {
                Ok(peer) => peers.push(peer),
                Err(reason) => self.leave_out(&format!("{}: {reason}", recipe.name)),
            }
        }
        peers
    }

    fn leave_out(&mut self, what: &str) {
        if !self.measured.left_out.iter().any(|known| known == what) {
            self.progress.say(what);
            self.measured.left_out.push(what.to_owned());
        }
    }

    /// One run of a closed loop, whose figures are added.
    fn closed(&mut self, load: &Load, id: &str, peer: &Peer, to: Closed) {
        let seconds = to.seconds.min(if self.options.quick { 1 } else { u32::MAX });
        match load.closed(peer, to.connections, seconds, to.work) {
            Ok(run) => {
                for (kind, value) in run.figures(to.work, to.connections) {
                    self.measured.add(id, &peer.name, kind, value);
                }
            }
            Err(reason) => {
                self.leave_out(&format!("{id}: {reason}"));
                self.measured.add(id, &peer.name, Kind::Errors, 1.0);
            }
        }
    }
}

/// How hard a closed loop drives.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Closed {
    pub(crate) connections: usize,
    pub(crate) seconds: u32,
    pub(crate) work: Work,
}
