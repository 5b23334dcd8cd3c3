//! A certificate authority made for a test, and a log sink behind TLS.
//!
//! Not here: a TLS client; the agent is the one that is judged.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::sink::TAKEN;

/// Longest body that a sink takes.
const MOST: usize = 1 << 20;
const TOO_LARGE: &[u8] = b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/// A self-signed certificate for `127.0.0.1` and `localhost`, with its key, in a folder that goes with it.
pub(crate) struct Authority {
    folder: PathBuf,
}

/// A sink that takes everything, or refuses what is long before it has come, and records the bodies.
pub(crate) struct TlsSink {
    pub(crate) port: u16,
    bodies: Arc<Mutex<Vec<String>>>,
}

impl Authority {
    /// `None`: there is no `openssl` to make one.
    pub(crate) fn new(name: &str) -> Option<Self> {
        let folder = std::env::temp_dir().join(format!("kserve-agent-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let made = Self { folder };
        let output = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
            .args(["-subj", &format!("/CN={name}"), "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"])
            .args(["-addext", "basicConstraints=critical,CA:FALSE"])
            .arg("-keyout")
            .arg(made.key())
            .arg("-out")
            .arg(made.certificate())
            .output()
            .ok()?;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Some(made)
    }

    pub(crate) fn certificate(&self) -> PathBuf {
        self.folder.join("certificate.pem")
    }

    fn key(&self) -> PathBuf {
        self.folder.join("key.pem")
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        // What is left is in a folder for temporary things.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl TlsSink {
    pub(crate) fn start(authority: &Authority) -> Self {
        let certificate = CertificateDer::from_pem_file(authority.certificate()).unwrap();
        let key = PrivateKeyDer::from_pem_file(authority.key()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let bodies = Arc::new(Mutex::new(Vec::new()));
        let of_threads = Arc::clone(&bodies);
        std::thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                let (config, bodies) = (Arc::clone(&config), Arc::clone(&of_threads));
                std::thread::spawn(move || serve(socket, config, &bodies));
            }
        });
        Self { port, bodies }
    }

    pub(crate) fn flag(&self) -> String {
        format!("--log-url=https://127.0.0.1:{}/events", self.port)
    }

    /// The payloads so far.
    pub(crate) fn payloads(&self) -> Vec<String> {
        self.bodies.lock().unwrap().clone()
    }
}

fn serve(socket: TcpStream, config: Arc<ServerConfig>, bodies: &Mutex<Vec<String>>) {
    // Else an answer waits for the kernel of the agent to acknowledge the tickets before it, and is lost by the close.
    socket.set_nodelay(true).unwrap();
    let mut stream = StreamOwned::new(ServerConnection::new(config).unwrap(), socket);
    let mut input = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&input).into_owned();
        let Some((head, rest)) = text.split_once("\r\n\r\n") else {
            if !fill(&mut stream, &mut input) {
                return;
            }
            continue;
        };
        let length =
            head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap().parse::<usize>().unwrap();
        if length > MOST {
            // As nginx does with one over its client_max_body_size: it answers, and reads no more.
            let _ = stream.write_all(TOO_LARGE).and_then(|()| stream.flush());
            return;
        }
        if rest.len() < length {
            if !fill(&mut stream, &mut input) {
                return;
            }
            continue;
        }
        bodies.lock().unwrap().push(rest[..length].to_owned());
        input.drain(..head.len() + 4 + length);
        if stream.write_all(TAKEN).and_then(|()| stream.flush()).is_err() {
            return;
        }
    }
}

fn fill(stream: &mut StreamOwned<ServerConnection, TcpStream>, input: &mut Vec<u8>) -> bool {
    let mut chunk = [0; 4096];
    let count = stream.read(&mut chunk).unwrap_or(0);
    input.extend_from_slice(&chunk[..count]);
    count > 0
}

/// A shell's commands that put this certificate where the agent looks for a mounted one, in a namespace of its own.
pub(crate) fn mounted(certificate: &Path, name: &str) -> String {
    let certificate = certificate.display();
    format!(
        "mount -t tmpfs tmpfs /etc && mkdir -p /etc/tls/logger && cp '{certificate}' /etc/tls/logger/{name} || exit 9"
    )
}
