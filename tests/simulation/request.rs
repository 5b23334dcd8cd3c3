//! Requests that a simulated client sends: valid ones, and some that are none or are cut off.

use super::rng::Rng;

/// How a peer's connection ends before its message does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// In an orderly way.
    End,
    Reset,
    /// Nothing more comes.
    Silence,
}

/// A request, and what must come of it.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) nonce: u64,
    pub(crate) method: &'static str,
    pub(crate) is_http10: bool,
    pub(crate) bytes: Vec<u8>,
    pub(crate) head: usize,
    pub(crate) body: Vec<u8>,
    /// Those that pass.
    pub(crate) trailers: Vec<(String, Vec<u8>)>,
    pub(crate) expects: bool,
    pub(crate) has_body: bool,
    /// The client asked for its connection to be closed, or did not ask for the opposite.
    pub(crate) closes: bool,
    /// It breaks a rule, and must not reach the server whole.
    pub(crate) is_wrong: bool,
    /// It ends after so many bytes.
    pub(crate) cut: Option<(usize, Cut)>,
}

/// Bytes that tell whose they are: a nonce and a tag over and over.
pub(crate) fn pattern(nonce: u64, tag: char, length: usize) -> Vec<u8> {
    let unit = format!("{tag}{nonce:016x}.");
    unit.bytes().cycle().take(length).collect()
}

pub(crate) fn body_length(rng: &mut Rng) -> usize {
    match rng.below(1000) {
        0 => 1 + rng.below(300_000),
        1..60 => 1 + rng.below(6000),
        60..200 => 0,
        _ => 1 + rng.below(120),
    }
}

/// `body` in chunks of any size, with extensions, and these trailers.
pub(crate) fn chunked(rng: &mut Rng, body: &[u8], trailers: &[(String, Vec<u8>)], out: &mut Vec<u8>) {
    let mut rest = body;
    while !rest.is_empty() {
        let size = if rest.len() > 2000 { rest.len().min(1 + rng.below(40_000)) } else { 1 + rng.below(rest.len()) };
        let digits = match rng.below(4) {
            0 => format!("{size:X}"),
            1 => format!("{size:08x}"),
            _ => format!("{size:x}"),
        };
        out.extend_from_slice(digits.as_bytes());
        out.extend_from_slice(rng.pick(&["", "", "", ";a", " ; a=b", ";q=\"0\\\";\t\"", ";x=1;y"]).as_bytes());
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(&rest[..size]);
        out.extend_from_slice(b"\r\n");
        rest = &rest[size..];
    }
    out.extend_from_slice(rng.pick(&["0", "0", "000", "0;last"]).as_bytes());
    out.extend_from_slice(b"\r\n");
    for (name, value) in trailers {
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// Trailers, all of them and those that pass.
pub(crate) fn trailers(rng: &mut Rng, nonce: u64) -> [Vec<(String, Vec<u8>)>; 2] {
    let mut sent = Vec::new();
    for _ in 0..rng.below(4) {
        let name = rng.pick(&["x-trailer", "grpc-status", "content-length", "transfer-encoding", "host", "x-sum"]);
        sent.push((name.to_owned(), pattern(nonce, 't', 1 + rng.below(20))));
    }
    let passes = |trailer: &&(String, Vec<u8>)| trailer.0.starts_with("x-") || trailer.0.starts_with("grpc-");
    let passed = sent.iter().filter(passes).cloned().collect();
    [sent, passed]
}

impl Request {
    pub(crate) fn random(rng: &mut Rng, nonce: u64) -> Self {
        let methods = ["GET", "POST", "POST", "PUT", "HEAD", "DELETE", "OPTIONS", "PATCH", "SLUDGE"];
        let method = methods[rng.below(methods.len())];
        let is_http10 = rng.once_in_thousand(120);
        let has_body = matches!(method, "POST" | "PUT" | "PATCH") || rng.once_in_thousand(100);
        let is_chunked = has_body && !is_http10 && rng.once_in_thousand(450);
        let expects = has_body && rng.once_in_thousand(80);
        let body = pattern(nonce, 'q', if has_body { body_length(rng) } else { 0 });
        let [sent, passed] = if is_chunked { trailers(rng, nonce) } else { Default::default() };

        let mut bytes = rng.pick(&["", "", "", "", "\r\n"]).as_bytes().to_vec();
        let target = rng.pick(&["/", "/v1/models/m:predict", "/a?b=%20", "http://model/x"]);
        let version = if is_http10 { "1.0" } else { "1.1" };
        bytes.extend_from_slice(format!("{method} {target} HTTP/{version}\r\nHost: model\r\n").as_bytes());
        bytes.extend_from_slice(format!("X-Nonce: {nonce:016x}\r\n").as_bytes());
        let closes = Self::connection(rng, is_http10, &mut bytes);
        if expects {
            bytes.extend_from_slice(b"Expect: 100-continue\r\n");
        }
        if is_chunked {
            bytes.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
        } else if has_body || rng.once_in_thousand(50) {
            bytes.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        let head = bytes.len();
        if is_chunked {
            chunked(rng, &body, &sent, &mut bytes);
        } else {
            bytes.extend_from_slice(&body);
        }
        let expects = expects && !is_http10 && bytes.len() > head;
        let mut request = Self {
            nonce,
            method,
            is_http10,
            bytes,
            head,
            body,
            trailers: passed,
            expects,
            has_body,
            closes,
            is_wrong: false,
            cut: None,
        };
        match rng.below(1000) {
            0..40 => request.go_wrong(rng, is_chunked),
            40..70 => request.be_cut(rng),
            _ => {}
        }
        request
    }

    fn connection(rng: &mut Rng, is_http10: bool, bytes: &mut Vec<u8>) -> bool {
        match rng.below(20) {
            0 => bytes.extend_from_slice(b"Connection: close\r\n"),
            1 => {
                bytes.extend_from_slice(b"connection: X-Hop, Keep-Alive\r\nX-Hop: secret\r\nKeep-Alive: timeout=1\r\n")
            }
            2..12 if is_http10 => bytes.extend_from_slice(b"Connection: keep-alive\r\n"),
            2 => bytes.extend_from_slice(b"TE: trailers, gzip\r\nProxy-Connection: close\r\n"),
            3 => bytes.extend_from_slice(b"X-Forwarded-For: 1.2.3.4, ::1\r\nX-Forwarded-Proto: https\r\n"),
            _ => return is_http10,
        }
        let text = String::from_utf8_lossy(bytes).to_ascii_lowercase();
        text.contains("connection: close\r\n") && !text.contains("proxy-connection: close\r\n")
            || is_http10 && !text.contains("keep-alive")
    }

    /// Makes it a request that must be refused.
    fn go_wrong(&mut self, rng: &mut Rng, is_chunked: bool) {
        self.is_wrong = true;
        if is_chunked && rng.below(2) == 0 {
            let wrong = rng.pick(&[
                "+1\r\nx\r\n",
                "g\r\n",
                "1\nx\r\n",
                "1\r\nxx\r\n",
                "0\r\nX : y\r\n\r\n",
                "\r\n",
                "1;\r\nx\r\n",
            ]);
            self.bytes.truncate(self.head);
            if rng.below(2) == 0 {
                self.bytes.extend_from_slice(b"5\r\nhello\r\n");
            }
            self.bytes.extend_from_slice(wrong.as_bytes());
            // Behind it lies what would be a request.
            self.bytes.extend_from_slice(b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: model\r\n\r\n");
            return;
        }
        let line = rng.pick(&[
            "X : y\r\n",
            " folded\r\n",
            "X: a\nTransfer-Encoding: chunked\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            "Transfer-Encoding: xchunked\r\n",
            "Host: other\r\n",
            "Transfer_Encoding: chunked\r\n",
            "X: \0\r\n",
        ]);
        let at = self.head - 2;
        self.bytes.splice(at..at, line.bytes());
        self.head += line.len();
    }

    fn be_cut(&mut self, rng: &mut Rng) {
        let how = [Cut::End, Cut::Reset, Cut::Silence][rng.below(3)];
        self.cut = Some((rng.below(self.bytes.len()), how));
    }

    /// What the client sends of it.
    pub(crate) fn sent(&self) -> &[u8] {
        &self.bytes[..self.cut.map_or(self.bytes.len(), |cut| cut.0)]
    }
}
