//! A panic costs one connection (DESIGN §3). The feature `fault-injection` lets a request provoke one.

use crate::support::{Agent, Server, Wire};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

fn is_served(client: &mut Wire) -> bool {
    client.send(GET);
    client.response().status() == 200
}

#[test]
fn a_panic_costs_one_connection() {
    let server = Server::good();
    let agent = Agent::watched(server.port, &["--threads=1", "--max-connections=4"]);
    let mut neighbour = agent.connect();
    assert!(is_served(&mut neighbour));
    // More of them than there may be connections: each gives its place back.
    for _ in 0..20 {
        let mut victim = agent.connect();
        assert!(is_served(&mut victim));
        victim.send("GET / HTTP/1.1\r\nHost: a\r\nX-Agent-Fault: panic\r\n\r\n");
        assert_eq!(victim.rest().0, b"", "closed without an answer");
        assert!(is_served(&mut neighbour));
    }
    assert!(is_served(&mut agent.connect()));
    assert!(agent.log().contains("a panic has cost one connection"), "{}", agent.log());
    assert_eq!(agent.metrics().count("panics_total"), 20);
    assert_eq!(agent.metrics().count("requests_in_flight"), 0);
    let why = agent.log().lines().filter(|line| line.contains("a bug of the agent's: thread worker-0: ")).count();
    assert_eq!(why, 20, "{}", agent.log());
}
