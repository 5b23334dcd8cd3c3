//! What connections and requests cost: DESIGN §3, §5.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Agent, Peer, Server, Wire, alone, possible_connections, process};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn an_idle_connection_costs_no_more_than_one_kib() {
    let _alone = alone();
    let server = Server::good();
    let agent = Agent::start(server.port, &[]);
    let open = || {
        let mut client = agent.connect();
        client.send(GET);
        assert_eq!(client.response().status(), 200);
        client
    };
    let few: Vec<Wire> = (0..20).map(|_| open()).collect();
    let before = agent.resident_kib();
    let count = possible_connections(1000);
    let many: Vec<Wire> = (0..count).map(|_| open()).collect();
    let grown = agent.resident_kib().saturating_sub(before);
    assert!(grown <= u64::try_from(count).unwrap(), "{grown} KiB for {count}");
    drop((few, many));
}

#[test]
fn whatever_a_connection_waits_for_it_uses_no_processor_time() {
    let _alone = alone();
    let server = Server::start(|mut peer: Peer| match peer.request_head().unwrap().target().as_str() {
        "/ws" => {
            peer.wire.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n");
            peer.wire.end();
            let _ = peer.wire.rest();
        }
        "/large" => {
            let _ = peer.wire.try_send("HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n");
            let _ = peer.wire.try_send(vec![b'x'; 100_000_000]);
        }
        "/early" => {
            peer.wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n");
            let _ = peer.wire.rest();
        }
        _ => {
            peer.wire.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{");
            let _ = peer.wire.rest();
        }
    });
    let agent = Agent::start(server.port, &[]);
    let states = [
        "",
        "GET / HT",
        GET,
        "GET /large HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",
        "POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /pipelined HTTP/1.1\r\nHost: a\r\n\r\n",
        "nonsense\r\n\r\n",
    ];
    let clients: Vec<Wire> = states
        .iter()
        .map(|state| {
            let mut client = agent.connect();
            client.send(state);
            client
        })
        .collect();
    crate::support::until("the server has them", || server.connections() >= 6);
    // Until what moves has moved: a quarter of a second in which the agent used no tick. Of the hundred ticks of a second one
    // is given away: the kernel charges a whole one to whoever happens to run when it looks, be it for a microsecond.
    let uses_no_more_than = |ticks: u64, time: Duration| {
        let before = process::ticks(agent.pid());
        !crate::support::holds_within(time, || process::ticks(agent.pid()) > before + ticks)
    };
    crate::support::until("it rests", || uses_no_more_than(0, Duration::from_millis(250)));
    assert!(uses_no_more_than(1, Duration::from_secs(1)), "a connection that waits uses processor time");
    drop(clients);
}

/// Calls of each kind that a running agent makes meanwhile, or why they could not be counted.
fn trace(agent: &Agent, run: impl FnOnce()) -> Result<HashMap<String, u64>, String> {
    if !process::has_program("strace") {
        return Err("no strace".into());
    }
    let mut strace = Command::new("strace")
        .args(["-f", "-c", "-U", "name,calls", "-p", &agent.pid().to_string()])
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())?;
    let mut lines = BufReader::new(strace.stderr.take().unwrap()).lines().map_while(Result::ok);
    let first = lines.next().unwrap_or_default();
    if !first.contains("attached") {
        let _ = strace.wait();
        return Err(first);
    }
    run();
    let pid = Pid::from_raw(i32::try_from(strace.id()).unwrap()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    let calls = lines
        .filter_map(|line| {
            let mut columns = line.split_whitespace();
            Some((columns.next()?.to_owned(), columns.next()?.parse().ok()?))
        })
        .collect();
    strace.wait().unwrap();
    Ok(calls)
}

#[test]
fn a_request_over_kept_connections_costs_four_socket_calls_and_no_registration() {
    const REQUESTS: u64 = 1000;
    let _alone = alone();
    let server = Server::good();
    let agent = Agent::start(server.port, &["--threads=1"]);
    let mut client = agent.connect();
    let mut ask = |count: u64| {
        for _ in 0..count {
            client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 17\r\n\r\n{\"instances\":[1]}");
            assert_eq!(client.response().status(), 200);
        }
    };
    ask(10);
    let calls = match trace(&agent, || ask(REQUESTS)) {
        Ok(calls) => calls,
        Err(why) => return eprintln!("calls were not counted: {why}"),
    };
    let sum = |names: &[&str]| names.iter().filter_map(|name| calls.get(*name)).sum::<u64>();
    let moved = sum(&["read", "write", "recvfrom", "sendto", "recvmsg", "sendmsg", "readv", "writev"]);
    // A call that was under way when the trace began or ended is not counted.
    assert!((REQUESTS * 4 - 4..=REQUESTS * 4 + 20).contains(&moved), "{calls:?}");
    // The kept connection to the server may be made anew once; none but that is registered.
    assert!(sum(&["epoll_ctl"]) <= 2, "{calls:?}");
    let others = calls.values().sum::<u64>() - sum(&["total"]) - moved - sum(&["epoll_wait", "epoll_pwait"]);
    assert!(others < REQUESTS / 20, "{calls:?}");
    assert!(sum(&["epoll_wait", "epoll_pwait"]) <= REQUESTS * 5 / 2, "{calls:?}");
}
