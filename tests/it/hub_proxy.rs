//! A proxy as used by companies: it supports CONNECT and SOCKS 5, optionally requires a password, refuses hosts or uses
//! TLS itself, and maps nonexistent names to the tests' own servers.

use crate::hub_server::{accept_tls, Stream};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// The proxy's configuration, and the requests it received.
#[derive(Default)]
pub(crate) struct Rules {
    /// Where a host and port are redirected to.
    pub(crate) routes: BTreeMap<String, SocketAddr>,
    /// The required `name:password`.
    pub(crate) credentials: Option<&'static str>,
    /// A host and port that are refused.
    pub(crate) refused: Option<String>,
    /// The requested hosts and ports.
    pub(crate) asked: Vec<String>,
}

/// The running proxy.
pub(crate) struct HubProxy {
    address: SocketAddr,
    pub(crate) rules: Arc<Mutex<Rules>>,
}

impl HubProxy {
    pub(crate) fn start(is_tls: bool) -> HubProxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let rules = Arc::new(Mutex::new(Rules::default()));
        let shared = rules.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let rules = shared.clone();
                std::thread::spawn(move || {
                    let stream: Box<dyn Stream> = if is_tls { accept_tls(stream) } else { Box::new(stream) };
                    serve(stream, &rules)
                });
            }
        });
        HubProxy { address, rules }
    }

    /// The proxy's address for a URL, with a host that the tests' certificate names.
    pub(crate) fn authority(&self) -> String {
        format!("localhost:{}", self.address.port())
    }

    pub(crate) fn route(&self, from: &str, to: SocketAddr) {
        self.rules.lock().unwrap().routes.insert(from.to_string(), to);
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        self.rules.lock().unwrap().asked.clone()
    }
}

fn serve(mut stream: Box<dyn Stream>, rules: &Mutex<Rules>) -> Option<()> {
    let mut first = [0];
    stream.read_exact(&mut first).ok()?;
    let is_socks = first[0] == 5;
    let target = if is_socks { greet_socks(&mut stream, rules)? } else { read_connect(&mut stream, rules)? };
    let (route, is_refused) = {
        let mut rules = rules.lock().unwrap();
        rules.asked.push(target.clone());
        (rules.routes.get(&target).copied(), rules.refused.as_ref() == Some(&target))
    };
    let there = match route {
        _ if is_refused => None,
        Some(address) => TcpStream::connect(address).ok(),
        None => TcpStream::connect(&target).ok(),
    };
    let verdict: &[u8] = match (is_socks, &there) {
        (true, Some(_)) => &[5, 0, 0, 1, 0, 0, 0, 0, 0, 0],
        (true, None) => &[5, 2, 0, 1, 0, 0, 0, 0, 0, 0],
        (false, Some(_)) => b"HTTP/1.1 200 Connection established\r\n\r\n",
        (false, None) => b"HTTP/1.1 403 Forbidden\r\n\r\n",
    };
    answer(&mut stream, verdict)?;
    tunnel(stream, there?)
}

/// Reads the rest of `CONNECT host:port` and its headers.
fn read_connect(stream: &mut Box<dyn Stream>, rules: &Mutex<Rules>) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).ok()?;
    let wanted =
        rules.lock().unwrap().credentials.map(|credentials| format!("Basic {}", base64(credentials.as_bytes())));
    let given = head.lines().find_map(|line| line.strip_prefix("Proxy-Authorization: "));
    if wanted.is_some() && wanted.as_deref() != given {
        answer(stream, b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")?;
        return None;
    }
    Some(head.strip_prefix("ONNECT ")?.split(' ').next()?.to_string())
}

/// RFC 1928 and 1929, for names only: an address would mean that the client had resolved the name itself.
fn greet_socks(stream: &mut Box<dyn Stream>, rules: &Mutex<Rules>) -> Option<String> {
    let methods = read(stream, 1)?[0].into();
    read(stream, methods)?;
    let wanted = rules.lock().unwrap().credentials;
    answer(stream, &[5, if wanted.is_some() { 2 } else { 0 }])?;
    if let Some(wanted) = wanted {
        read(stream, 1)?;
        let given = [read_text(stream)?, read_text(stream)?].join(":");
        answer(stream, &[1, u8::from(given != wanted)])?;
        (given == wanted).then_some(())?;
    }
    (read(stream, 4)? == [5, 1, 0, 3]).then_some(())?;
    let host = read_text(stream)?;
    let port = read(stream, 2)?;
    Some(format!("{host}:{}", u16::from_be_bytes([port[0], port[1]])))
}

fn read(stream: &mut Box<dyn Stream>, length: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).ok().map(|()| bytes)
}

/// A text prefixed by its length in one byte.
fn read_text(stream: &mut Box<dyn Stream>) -> Option<String> {
    let length = read(stream, 1)?[0].into();
    String::from_utf8(read(stream, length)?).ok()
}

fn answer(stream: &mut Box<dyn Stream>, bytes: &[u8]) -> Option<()> {
    stream.write_all(bytes).and_then(|()| stream.flush()).ok()
}

/// Forwards bytes both ways, alternating between a request and its response.
fn tunnel(mut here: Box<dyn Stream>, mut there: TcpStream) -> Option<()> {
    use std::time::Duration;
    here.set_read_timeout(Duration::from_millis(5));
    there.set_read_timeout(Some(Duration::from_millis(5))).ok()?;
    let mut buffer = vec![0; 1 << 16];
    loop {
        carry(&mut *here, &mut there, &mut buffer)?;
        carry(&mut there, &mut *here, &mut buffer)?;
    }
}

/// `None` if either side closes.
fn carry(from: &mut (impl Read + ?Sized), to: &mut (impl Write + ?Sized), buffer: &mut [u8]) -> Option<()> {
    match from.read(buffer) {
        Ok(0) => None,
        Ok(read) => to.write_all(&buffer[..read]).and_then(|()| to.flush()).ok(),
        Err(error) => {
            use std::io::ErrorKind::*;
            matches!(error.kind(), WouldBlock | TimedOut | Interrupted).then_some(())
        }
    }
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let encode = |chunk: &[u8]| {
        let bits = chunk.iter().chain(&[0; 3]).take(3).fold(0u32, |bits, byte| bits << 8 | u32::from(*byte));
        let digit =
            |i: usize| if i > chunk.len() { '=' } else { char::from(DIGITS[(bits >> (18 - 6 * i) & 63) as usize]) };
        (0..4).map(digit).collect::<String>()
    };
    bytes.chunks(3).map(encode).collect()
}
