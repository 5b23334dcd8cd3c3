//! A simulation of clients, the agent's exchanges and a model server, driven by seeds (no socket, no clock).
//!
//! Every request carries a nonce in its head and all over its body, and so does the response. Both sides read with a
//! strict reader that shares no line with the agent's. What must hold is asserted at each step; see `world.rs` for the
//! schedule, `client.rs` and `server.rs` for what each side must see. A failure names its seed; `SIM_SEED=<seed> cargo
//! test --test simulation` runs just that one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "simulation/client.rs"]
mod client;
#[allow(dead_code, reason = "the cases use the rest")]
#[path = "simulation/owner.rs"]
mod owner;
#[path = "simulation/reader.rs"]
mod reader;
#[path = "simulation/request.rs"]
mod request;
#[path = "simulation/response.rs"]
mod response;
#[path = "simulation/rng.rs"]
mod rng;
#[path = "simulation/server.rs"]
mod server;
#[path = "simulation/world.rs"]
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use client::Tally;
use world::World;

const EXCHANGES: usize = 100_000;

/// The run with this seed.
fn run(seed: u64) -> Tally {
    catch_unwind(AssertUnwindSafe(|| World::new(seed).run()))
        .unwrap_or_else(|_| panic!("seed {seed} fails; rerun with SIM_SEED={seed} cargo test --test simulation"))
}

#[test]
fn whatever_happens_each_client_gets_its_own_answers_and_the_server_whole_requests() {
    if let Ok(seed) = std::env::var("SIM_SEED") {
        run(seed.parse().unwrap());
        return;
    }
    let (mut tally, mut seeds) = (Tally::default(), 0..);
    while tally.exchanges < EXCHANGES {
        tally = tally + run(seeds.next().unwrap());
    }
    let Tally { whole, early, interims, refused, replaced, cut, reset, stale, resent, reuses, .. } = tally;
    let often = [whole, reuses, interims, refused, replaced, cut, stale, resent, early];
    assert!(often.iter().all(|count| *count > EXCHANGES / 500) && reset > 50, "hardly tried: {tally:?}");
}
