//! A model server that does as a test tells it, one thread for each connection.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};

use socket2::{Domain, Socket, Type};

use super::wire::{Message, Wire};
use super::{OK, until};

/// A listening server. Dropping it closes the listener and every connection.
pub(crate) struct Server {
    pub(crate) port: u16,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    seen: Mutex<Vec<Message>>,
    connections: AtomicUsize,
    open: Mutex<Vec<Weak<Socket>>>,
    stopped: AtomicBool,
}

/// The server's end of one connection.
pub(crate) struct Peer {
    pub(crate) wire: Wire,
    /// 0 for the first connection, and so on.
    pub(crate) number: usize,
    shared: Arc<Shared>,
}

impl Server {
    /// Serves each connection with `serve`.
    pub(crate) fn start(serve: impl Fn(Peer) + Send + Sync + 'static) -> Self {
        Self::start_on(0, serve)
    }

    /// The same on this port, which may have been another server's a moment ago.
    pub(crate) fn start_on(port: u16, serve: impl Fn(Peer) + Send + Sync + 'static) -> Self {
        let listener = listen(port);
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared::default());
        let serve = Arc::new(serve);
        let of_thread = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if of_thread.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let peer = Peer::of(stream, &of_thread);
                let serve = Arc::clone(&serve);
                std::thread::spawn(move || serve(peer));
            }
        });
        Self { port, shared }
    }

    /// Answers every request with the same bytes.
    pub(crate) fn answering(response: impl AsRef<[u8]> + Send + Sync + 'static) -> Self {
        Self::start(move |mut peer| while peer.request().is_some() && peer.wire.try_send(&response).is_ok() {})
    }

    /// Answers every request well.
    pub(crate) fn good() -> Self {
        Self::answering(OK)
    }

    /// Answers with what `answer` makes of each request.
    pub(crate) fn with(answer: impl Fn(&Message) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::start(move |mut peer| {
            while let Some(request) = peer.request() {
                if peer.wire.try_send(answer(&request)).is_err() {
                    return;
                }
            }
        })
    }

    /// The requests that were read so far, in order of their ends.
    pub(crate) fn seen(&self) -> Vec<Message> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// The one request that was read.
    #[track_caller]
    pub(crate) fn only(&self) -> Message {
        let mut seen = self.seen();
        assert_eq!(seen.len(), 1, "{seen:?}");
        seen.remove(0)
    }

    /// Connections that were accepted so far.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Ends as a killed process does: no listener, no connection, and the port is free again.
    pub(crate) fn kill(self) {
        let port = self.port;
        drop(self);
        until("the server's port is free", || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        // Wakes the accept thread.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        for socket in self.shared.open.lock().unwrap().drain(..).filter_map(|socket| socket.upgrade()) {
            let _ = socket.shutdown(std::net::Shutdown::Both);
        }
    }
}

impl Peer {
    fn of(stream: TcpStream, shared: &Arc<Shared>) -> Self {
        stream.set_nodelay(true).unwrap();
        let wire = Wire::of(stream);
        let mut open = shared.open.lock().unwrap();
        if open.len() == open.capacity() {
            open.retain(|socket| socket.strong_count() > 0);
        }
        open.push(Arc::downgrade(wire.socket()));
        let number = shared.connections.fetch_add(1, Ordering::SeqCst);
        Self { wire, number, shared: Arc::clone(shared) }
    }

    /// Reads one request and records it.
    pub(crate) fn request(&mut self) -> Option<Message> {
        let request = self.wire.request()?;
        Some(self.record(request))
    }

    /// Reads one request head, leaves the body, and records it.
    pub(crate) fn request_head(&mut self) -> Option<Message> {
        let request = self.wire.request_head()?;
        Some(self.record(request))
    }

    fn record(&self, mut request: Message) -> Message {
        request.connection = self.number;
        self.shared.seen.lock().unwrap().push(request.clone());
        request
    }
}

fn listen(port: u16) -> TcpListener {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into()).unwrap();
    socket.listen(4096).unwrap();
    socket.into()
}
