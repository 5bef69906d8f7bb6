//! A real Redis for one test, and a proxy before it that does to its replies what networks do.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{sleep, spawn};
use std::time::Duration;

use super::eventually;

/// A server that this test started, gone with it.
pub(crate) struct Server {
    process: Child,
    pub(crate) port: u16,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::start_at(free_port())
    }

    pub(crate) fn start_at(port: u16) -> Self {
        let mut command = Command::new("redis-server");
        command.args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
        ]);
        let process = command.current_dir(std::env::temp_dir()).stdout(Stdio::null()).spawn();
        let process = process.expect("`redis-server` is missing: install Debian's package of that name");
        let server = Self { process, port };
        eventually("the server answers", || {
            TcpStream::connect(("127.0.0.1", port)).is_ok() && server.command(&["PING"]).starts_with("+PONG")
        });
        server
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// One command; the first line of its reply, or of a bulk reply the text.
    pub(crate) fn command(&self, words: &[&str]) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("the server is up");
        stream.write_all(format!("*{}\r\n", words.len()).as_bytes()).unwrap();
        for word in words {
            stream.write_all(format!("${}\r\n{word}\r\n", word.len()).as_bytes()).unwrap();
        }
        let mut reader = BufReader::new(stream);
        let first = line(&mut reader);
        match first.as_bytes().first() {
            Some(b'$') => line(&mut reader),
            Some(b'*') => {
                let count = first[1..].parse::<usize>().unwrap();
                let items = (0..count).map(|_| {
                    line(&mut reader);
                    line(&mut reader)
                });
                items.collect::<Vec<_>>().join("\n")
            }
            _ => first,
        }
    }

    /// The names of all keys.
    pub(crate) fn keys(&self) -> Vec<String> {
        let mut keys: Vec<String> = self.command(&["KEYS", "*"]).lines().map(str::to_owned).collect();
        keys.sort();
        keys
    }

    pub(crate) fn wait_for_keys(&self, count: usize) {
        eventually("the answers are stored", || self.keys().len() == count);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What happens to replies.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    None,
    /// They never come.
    Blackhole,
    /// They come late.
    Late(Duration),
    /// One byte at a time.
    Drip,
    /// The connection is cut after so many bytes.
    CutAfter(usize),
    /// One bit of each byte is wrong, from the so manieth on.
    CorruptFrom(usize),
    /// Something else comes.
    Instead(&'static str),
}

/// A proxy on a port of its own.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    fault: Arc<Mutex<Fault>>,
}

impl Proxy {
    pub(crate) fn before(server_port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let fault = Arc::new(Mutex::new(Fault::None));
        let shared = Arc::clone(&fault);
        spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(("127.0.0.1", server_port)) else { continue };
                let fault = Arc::clone(&shared);
                let (mut from_client, mut to_server) =
                    (client.try_clone().unwrap(), server.try_clone().unwrap());
                spawn(move || {
                    let _ = std::io::copy(&mut from_client, &mut to_server);
                    let _ = to_server.shutdown(Shutdown::Both);
                });
                spawn(move || replies(server, client, &fault));
            }
        });
        Self { port, fault }
    }

    pub(crate) fn set(&self, fault: Fault) {
        *self.fault.lock().unwrap() = fault;
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}

fn replies(mut server: TcpStream, mut client: TcpStream, fault: &Mutex<Fault>) {
    let mut buffer = [0; 64 << 10];
    let mut passed = 0;
    while let Ok(count @ 1..) = server.read(&mut buffer) {
        let mut bytes = buffer[..count].to_vec();
        let fault = fault.lock().unwrap().clone();
        match fault {
            Fault::None => {}
            Fault::Blackhole => continue,
            Fault::Late(by) => sleep(by),
            Fault::Drip => {
                for byte in bytes {
                    if client.write_all(&[byte]).is_err() {
                        return;
                    }
                    sleep(Duration::from_millis(200));
                }
                continue;
            }
            Fault::CutAfter(most) => bytes.truncate(most.saturating_sub(passed)),
            Fault::CorruptFrom(first) => {
                bytes.iter_mut().skip(first.saturating_sub(passed)).for_each(|byte| *byte ^= 1);
            }
            Fault::Instead(reply) => bytes = reply.into(),
        }
        passed += count;
        if client.write_all(&bytes).is_err() || matches!(fault, Fault::CutAfter(most) if passed > most) {
            break;
        }
    }
    let _ = client.shutdown(Shutdown::Both);
}

/// A port where nobody listens.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn line(reader: &mut impl BufRead) -> String {
    let mut line = Vec::new();
    reader.read_until(b'\n', &mut line).unwrap();
    String::from_utf8_lossy(&line).trim_end().to_owned()
}
