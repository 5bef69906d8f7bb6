//! The example server, over real sockets.

#[path = "../../examples/axum_chat.rs"]
#[allow(dead_code, reason = "its `main` is the example's")]
mod axum_chat;

use std::net::SocketAddr;
use std::time::Duration;

use antiphon::{Engine, EngineConfig, ModelSource};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::metrics::value;
use crate::{open, responder_files};

#[test]
fn two_hundred_clients_at_once_each_get_one_whole_answer() {
    // The window holds the first back until all are there.
    let engine = open(batcher(json!({"max_concurrent": 200, "window_ms": 10_000})));
    run(async {
        let server = Server::start(engine).await;
        let mut clients = JoinSet::new();
        for number in 4000..4200 {
            let request =
                json!({"message": format!("Where is order {number}?"), "options": {"max_tokens": 16}});
            let server = server.clone();
            clients.spawn(async move {
                let events = if number % 2 == 0 {
                    server.chat("", request.to_string()).await.events()
                } else {
                    server.websocket("default").await.ask(request.to_string()).await
                };
                assert_eq!(whole(&events)["entities"][0]["value"], number.to_string());
            });
        }
        assert_eq!(clients.join_all().await.len(), 200);
        let text = server.get("/metrics").await.body;
        assert_eq!(value(&text, r#"ai_requests_total{endpoint="process",status="success"}"#), Some(200.0));
    });
}

#[test]
fn clients_that_leave_in_the_middle_of_an_answer_end_its_work() {
    let (_files, engine) = endless(json!({"max_concurrent": 3}));
    run(async {
        let server = Server::start(engine).await;
        let post = server.begun_post().await;
        let socket = server.begun_websocket().await;
        let mut polite = server.begun_websocket().await;
        server.until("antiphon_running_requests", 3.0).await;
        drop(post);
        server.until(CANCELLED, 1.0).await;
        drop(socket);
        server.until(CANCELLED, 2.0).await;
        // A farewell is enough, though the connection stays.
        polite.0.close(None).await.unwrap();
        server.until(CANCELLED, 3.0).await;
        server.until("antiphon_running_requests", 0.0).await;
        server.until("antiphon_queue_depth", 0.0).await;
        whole(&server.chat("", r#"{"message": "Hello"}"#).await.events());
    });
}

#[test]
fn a_full_queue_is_429_with_the_time_to_come_back_and_a_late_request_504() {
    let (_files, engine) = endless(json!({"max_concurrent": 1, "max_queue": 1}));
    run(async {
        let server = Server::start(engine).await;
        let running = server.begun_post().await;
        let mut waiting = server.websocket("default").await;
        waiting.0.send(endless_request().into()).await.unwrap();
        server.until("antiphon_queue_depth", 1.0).await;

        let refused = server.chat("", r#"{"message": "Hello"}"#).await;
        assert_eq!((refused.status, refused.json()["kind"].as_str()), (429, Some("overloaded")));
        let seconds: u64 = refused.header("retry-after").unwrap().parse().unwrap();
        assert!(seconds * 1000 >= refused.json()["retry_after_ms"].as_u64().unwrap() && seconds > 0);
        let events = server.websocket("default").await.ask(r#"{"message": "Hello"}"#).await;
        assert_eq!((events.len(), &events[0]["error"]["kind"]), (1, &json!("overloaded")));

        // Who leaves the queue makes room there, though nothing was sent yet on which the server could notice it.
        drop(waiting);
        server.until("antiphon_queue_depth", 0.0).await;
        let waiting = server.send("POST /chat", "", endless_request().as_bytes()).await;
        server.until("antiphon_queue_depth", 1.0).await;
        drop(waiting);
        server.until("antiphon_queue_depth", 0.0).await;

        let late = server.chat("", r#"{"message": "Hello", "options": {"deadline_ms": 200}}"#).await;
        assert_eq!((late.status, late.json()["kind"].as_str()), (504, Some("deadline_exceeded")));

        drop(running);
        server.until("antiphon_running_requests", 0.0).await;
        server.until(CANCELLED, 3.0).await;
        whole(&server.chat("", r#"{"message": "Hello"}"#).await.events());
    });
}

#[test]
fn a_bad_request_is_refused_by_name_and_the_websocket_lives_on() {
    run(async {
        let server = Server::start(open(EngineConfig::default())).await;
        let mut socket = server.websocket("default").await;
        for (request, named) in [
            ("", "request"),
            ("{", "request"),
            (r#"["Hello"]"#, "request"),
            (r#"{"mesage": "Hello"}"#, "`mesage`"),
            (r#"{"message": "Hello", "options": {"max_token": 1}}"#, "`max_token`"),
            (r#"{"message": "Hello", "options": {"max_tokens": 0}}"#, "`max_tokens`"),
            (r#"{"message": "Hello", "options": {"model": "gpt"}}"#, "model"),
            (r#"{"message": ""}"#, "message"),
        ] {
            let refused = server.chat("", request).await;
            let error = refused.json();
            assert_eq!((refused.status, &error["type"]), (400, &json!("VALIDATION")), "{request}");
            assert!(error["message"].as_str().unwrap().contains(named), "{error}");
            assert_eq!(socket.ask(request).await, [json!({"type": "error", "error": error})]);
        }
        assert_eq!(server.chat("", b"{\"message\": \"\xff\"}").await.json()["kind"], "invalid_text");
        let foreign = server.chat("X-Tenant-ID: \u{e4}\r\n", r#"{"message": "Hello"}"#).await;
        assert!(foreign.json()["message"].as_str().unwrap().contains("`X-Tenant-ID`"));
        whole(&socket.ask(r#"{"message": "Hello"}"#).await);
    });
}

#[test]
fn requests_sent_ahead_are_answered_in_their_order() {
    run(async {
        let server = Server::start(open(EngineConfig::default())).await;
        let mut socket = server.websocket("default").await;
        for number in 4000..4050 {
            let request =
                json!({"message": format!("Where is order {number}?"), "options": {"max_tokens": 8}});
            socket.0.send(request.to_string().into()).await.unwrap();
        }
        for number in 4000..4050 {
            assert_eq!(whole(&socket.answer().await)["entities"][0]["value"], number.to_string());
        }
    });
}

#[test]
fn the_tenant_header_keeps_answers_apart() {
    run(async {
        let server = Server::start(open(EngineConfig::default())).await;
        let request = r#"{"message": "Hello", "tenant_id": "of the body"}"#;
        let outcome = |events: &[Value]| whole(events)["metadata"]["response_generation"]["cache"].clone();
        for (tenant, expected) in [("acme", "miss"), ("acme", "hit"), ("umbrella", "miss")] {
            let headers = format!("X-Tenant-ID: {tenant}\r\n");
            assert_eq!(outcome(&server.chat(&headers, request).await.events()), expected);
        }
        for (tenant, expected) in [("umbrella", "hit"), ("initech", "miss")] {
            assert_eq!(outcome(&server.websocket(tenant).await.ask(request).await), expected);
        }
        assert_eq!(outcome(&server.chat("", request).await.events()), "miss");
    });
}

#[test]
fn health_and_metrics_go_on_when_the_engine_has_closed() {
    run(async {
        let server = Server::start(open(EngineConfig::default())).await;
        let health = server.get("/health").await;
        assert_eq!((health.status, &health.json()["status"]), (200, &json!("healthy")));
        server.engine.close().unwrap();
        let health = server.get("/health").await;
        assert_eq!((health.status, &health.json()["ready"]), (503, &json!(false)));
        let refused = server.chat("", r#"{"message": "Hello"}"#).await;
        assert_eq!((refused.status, &refused.json()["kind"]), (503, &json!("closed")));
        let metrics = server.get("/metrics").await;
        assert!(metrics.header("content-type").unwrap().starts_with("application/openmetrics-text"));
        assert!(metrics.body.ends_with("# EOF\n"));
        assert_eq!(value(&metrics.body, r#"antiphon_rejected_total{reason="closed"}"#), Some(1.0));
    });
}

/// Runs a test on a runtime of its own; the time is only there so that a hang ends.
fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(300), test).await.expect("no hang") })
}

/// A configuration with these settings of the batcher, and bounds that no test here is to meet.
fn batcher(settings: Value) -> EngineConfig {
    let mut config = json!({"batcher": {"max_queue_tokens": 1_000_000_000, "timeout_ms": 600_000}});
    config["batcher"].as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    EngineConfig::from_json(&config.to_string()).unwrap()
}

/// An engine whose answers can be so long that none ends before its client has left.
fn endless(settings: Value) -> (tempfile::TempDir, Engine) {
    let files = responder_files();
    let path = files.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config["max_position_embeddings"] = ENDLESS_TOKENS.into();
    std::fs::write(&path, config.to_string()).unwrap();
    let responder = ModelSource::Path(files.path().to_owned());
    let engine = open(batcher(settings).responder(responder).kv_cache_bytes(1 << 30));
    (files, engine)
}

/// It never takes the token that ends a turn of the bundled responder.
fn endless_request() -> String {
    let options = json!({"max_tokens": ENDLESS_TOKENS - 1000, "logit_bias": {"3": -100}, "cache": "bypass"});
    json!({"message": "Hello", "options": options}).to_string()
}

/// Checks that these are the events of one answer, each once and in order, and gives the reply.
fn whole(events: &[Value]) -> &Value {
    let [analysis, chunks @ .., done] = events else { panic!("{events:?}") };
    assert_eq!((&analysis["type"], &done["type"]), (&json!("analysis"), &json!("done")));
    assert!(!chunks.is_empty() && chunks.iter().all(|chunk| chunk["type"] == "chunk"), "{events:?}");
    let text: String = chunks.iter().map(|chunk| chunk["content"].as_str().unwrap()).collect();
    assert_eq!(done["reply"]["response"], text);
    &done["reply"]
}

#[derive(Clone)]
struct Server {
    engine: Engine,
    address: SocketAddr,
}

impl Server {
    async fn start(engine: Engine) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = axum_chat::app(engine.clone());
        tokio::spawn(async { axum::serve(listener, app).await.unwrap() });
        Self { engine, address }
    }

    /// Sends a request of HTTP 1.0, whose answer comes as it is and ends with the connection.
    async fn send(&self, line: &str, headers: &str, body: &[u8]) -> TcpStream {
        let mut socket = TcpStream::connect(self.address).await.unwrap();
        let head = format!("{line} HTTP/1.0\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
        socket.write_all(&[head.as_bytes(), body].concat()).await.unwrap();
        socket
    }

    async fn get(&self, path: &str) -> Response {
        Response::read(self.send(&format!("GET {path}"), "", b"").await).await
    }

    async fn chat(&self, headers: &str, request: impl AsRef<[u8]>) -> Response {
        Response::read(self.send("POST /chat", headers, request.as_ref()).await).await
    }

    async fn websocket(&self, tenant: &str) -> Socket {
        let socket = TcpStream::connect(self.address).await.unwrap();
        let mut request = format!("ws://{}/ws", self.address).into_client_request().unwrap();
        request.headers_mut().insert("x-tenant-id", tenant.parse().unwrap());
        Socket(client_async(request, socket).await.unwrap().0)
    }

    /// A client of an endless answer that has read its first chunk.
    async fn begun_post(&self) -> TcpStream {
        let mut socket = self.send("POST /chat", "", endless_request().as_bytes()).await;
        let mut read = Vec::new();
        while !String::from_utf8_lossy(&read).contains("event: chunk") {
            assert!(socket.read_buf(&mut read).await.unwrap() > 0, "ended early");
        }
        socket
    }

    /// The same over a WebSocket.
    async fn begun_websocket(&self) -> Socket {
        let mut socket = self.websocket("default").await;
        socket.0.send(endless_request().into()).await.unwrap();
        while socket.event().await["type"] != "chunk" {}
        socket
    }

    /// Waits until a sample of the metrics has a value.
    async fn until(&self, sample: &str, expected: f64) {
        while value(&self.get("/metrics").await.body, sample) != Some(expected) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

struct Response {
    status: u16,
    head: String,
    body: String,
}

impl Response {
    async fn read(mut socket: TcpStream) -> Self {
        let mut text = String::new();
        socket.read_to_string(&mut text).await.unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Self { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// The server-sent events, each with the name that its JSON has.
    fn events(&self) -> Vec<Value> {
        assert_eq!((self.status, self.header("content-type")), (200, Some("text/event-stream")));
        let event = |block: &str| {
            let (name, data) = block.strip_prefix("event: ").unwrap().split_once("\ndata: ").unwrap();
            let event: Value = serde_json::from_str(data).unwrap();
            assert_eq!(event["type"], name);
            event
        };
        self.body.split_terminator("\n\n").map(event).collect()
    }
}

struct Socket(WebSocketStream<TcpStream>);

impl Socket {
    async fn event(&mut self) -> Value {
        match self.0.next().await.unwrap().unwrap() {
            Message::Text(json) => serde_json::from_str(&json).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// The events up to the last one of an answer.
    async fn answer(&mut self) -> Vec<Value> {
        let mut events = vec![self.event().await];
        while !["done", "error"].contains(&events.last().unwrap()["type"].as_str().unwrap()) {
            events.push(self.event().await);
        }
        events
    }

    async fn ask(&mut self, request: impl Into<String>) -> Vec<Value> {
        self.0.send(Message::Text(request.into().into())).await.unwrap();
        self.answer().await
    }
}

/// Minutes of work, for which only the few rows that are written take memory.
const ENDLESS_TOKENS: usize = 1 << 15;
const CANCELLED: &str = r#"ai_requests_total{endpoint="process",status="cancelled"}"#;
