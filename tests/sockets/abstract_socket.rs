//! The second listener, `@/kserve/agent.sock`: SPEC P12.
//!
//! One agent in a network namespace can own the name, and the tests beside this one have agents running. So this test
//! runs itself again in a namespace of its own (`unshare -n`, in a user namespace unless root runs it). Where the
//! kernel does not allow that, it says so and has shown nothing.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::process::Command;

use crate::support::wire::Ending;
use crate::support::{Agent, OK, Peer, Server, Wire, process, until};

/// Set in the namespace.
const INSIDE: &str = "KSERVE_AGENT_TEST_INSIDE";

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n";

#[test]
fn the_abstract_socket_serves_the_same() {
    if !process::has_program("unshare") {
        return eprintln!("no unshare: the abstract socket was not tried");
    }
    let may =
        |flags: &str| Command::new("unshare").args([flags, "true"]).output().is_ok_and(|run| run.status.success());
    let Some(flags) = ["-n", "-rn"].into_iter().find(|flags| may(flags)) else {
        return eprintln!("no network namespace to be had: the abstract socket was not tried");
    };
    let inside = Command::new("unshare")
        .arg(flags)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "--ignored", "--nocapture", "abstract_socket::inside_a_namespace_of_its_own"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let said = format!("{}{}", text(&inside.stdout), text(&inside.stderr));
    assert!(inside.status.success() && said.contains("1 passed"), "{said}");
}

#[test]
#[ignore = "run by the test above, in a network namespace"]
fn inside_a_namespace_of_its_own() {
    if std::env::var_os(INSIDE).is_none() {
        return;
    }
    assert!(process::raise_loopback(), "the loopback could not be brought up");
    a_client_on_it_is_served_and_not_named();
    it_carries_probes_uploads_and_tunnels();
    a_second_agent_warns_and_goes_on();
    a_client_that_leaves_cancels_its_request();
}

fn connect() -> Wire {
    let address = SocketAddr::from_abstract_name("/kserve/agent.sock").unwrap();
    // The agent listens here a moment after the TCP port that its start is seen by.
    let mut stream = None;
    until("the abstract socket", || {
        stream = UnixStream::connect_addr(&address).ok();
        stream.is_some()
    });
    Wire::of(stream.unwrap())
}

fn a_client_on_it_is_served_and_not_named() {
    let server = Server::good();
    let _agent = Agent::start(server.port, &[]);
    let mut client = connect();
    client.send("GET /v1/models/m HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.response().body, b"{}");
    client.send(GET);
    assert_eq!(client.response().status(), 200);
    let seen = server.seen();
    assert_eq!(seen[0].field("x-forwarded-for"), None);
    // Go appends nothing when there is no address to append.
    assert_eq!(seen[1].field("x-forwarded-for").as_deref(), Some("1.2.3.4"));
}

fn it_carries_probes_uploads_and_tunnels() {
    let server = Server::start(|mut peer: Peer| {
        while let Some(request) = peer.request() {
            if request.target() == "/ws" {
                peer.wire.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n");
                let (got, _) = peer.wire.rest();
                return peer.wire.send(got);
            }
            peer.wire.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", request.body.len()));
            peer.wire.send(request.body);
        }
    });
    let _agent = Agent::start(server.port, &[]);
    let mut client = connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: kube-probe/1.31\r\nK-Network-Probe: queue\r\n\r\n");
    assert_eq!(client.response().text(), "queue");
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n{}", "x".repeat(3_000_000)));
    assert_eq!(client.response().body.len(), 3_000_000);
    client.send("GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n");
    assert_eq!(client.response().status(), 101);
    client.send("ping");
    client.end();
    assert_eq!(client.rest(), (b"ping".to_vec(), Ending::Closed));
}

fn a_second_agent_warns_and_goes_on() {
    let server = Server::good();
    let first = Agent::start(server.port, &[]);
    let second = Agent::start(server.port, &[]);
    assert_eq!(second.ask(GET).status(), 200);
    until("a warning", || {
        second.log().lines().any(|line| line.contains("WARN") && line.contains("@/kserve/agent.sock"))
    });
    assert!(!first.log().contains("WARN"), "{}", first.log());
}

fn a_client_that_leaves_cancels_its_request() {
    let (saw, seen) = std::sync::mpsc::channel();
    let server = Server::start(move |mut peer: Peer| {
        peer.request();
        saw.send(peer.wire.rest().0).unwrap();
        let _ = peer.wire.try_send(OK);
    });
    let _agent = Agent::start(server.port, &[]);
    let mut client = connect();
    client.send(GET);
    until("the server has it", || !server.seen().is_empty());
    drop(client);
    assert_eq!(seen.recv_timeout(crate::support::PATIENCE).unwrap(), b"");
}
