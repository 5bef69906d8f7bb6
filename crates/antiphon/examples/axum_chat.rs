//! A chat server on axum, to copy into a service of your own.
//!
//! ```console
//! $ cargo run --release -p antiphon --example axum_chat
//! $ curl -N localhost:3000/chat -d '{"message": "Hello, I need help with my account"}'
//! $ curl -N localhost:3000/chat -H 'X-Tenant-ID: acme' -d '{"message": "Hello", "options": {"max_tokens": 8}}'
//! $ curl localhost:3000/health
//! $ curl localhost:3000/metrics
//! $ websocat ws://localhost:3000/ws
//! {"message": "Where is order 4711?"}
//! ```
//!
//! Two things are the service's own and not here: who may call it, and when it ends. To let answers under way end first,
//! give `axum::serve` a `with_graceful_shutdown` and call [`Engine::drain`] after it.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io::{Write, stderr};
use std::time::Duration;

use antiphon::{Engine, EngineConfig, Error, ErrorKind, Event, ReplyStream, Request};
use axum::body::Bytes;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{self, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::ListenerExt;
use axum::{Json, Router};
use futures_util::{StreamExt, stream};

/// The runtime is the host's. The engine computes on threads of its own and wakes whoever awaits it, on any executor.
#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:3000".to_owned());
    let engine = Engine::open(EngineConfig::default())?;
    let listener = tokio::net::TcpListener::bind(address).await?;
    writeln!(stderr(), "listening on http://{}", listener.local_addr()?)?;
    // A chunk is a small packet, which TCP would otherwise hold back for the next one.
    let listener = listener.tap_io(|socket| _ = socket.set_nodelay(true));
    Ok(axum::serve(listener, app(engine)).await?)
}

/// The routes over one engine, which all of them share.
pub(crate) fn app(engine: Engine) -> Router {
    Router::new()
        .route("/chat", post(chat))
        .route("/ws", get(ws))
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .layer(DefaultBodyLimit::max(MAX_REQUEST_BYTES))
        .with_state(engine)
}

/// Answers one request with server-sent events. When the client leaves, axum drops the stream, and that ends the work.
async fn chat(
    State(engine): State<Engine>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<impl IntoResponse, Refusal> {
    let mut events = ask(&engine, &headers, &body)?;
    // Until the first event is there, an error can still become a status.
    let first = events.next().await.transpose()?;
    let events = stream::iter(first.map(Ok)).chain(events).map(|event| {
        let (kind, json) = frame(event);
        Ok::<_, Infallible>(sse::Event::default().event(kind).data(json))
    });
    Ok(Sse::new(events))
}

/// Answers the requests of one WebSocket, each event a text of its own.
async fn ws(State(engine): State<Engine>, headers: HeaderMap, upgrade: WebSocketUpgrade) -> Response {
    let talk = |socket| async move { _ = talk(socket, engine, headers).await };
    upgrade.max_message_size(MAX_REQUEST_BYTES).on_upgrade(talk)
}

/// Answers one request after the other until the client leaves, which is the `None` of every `?`.
async fn talk(mut socket: WebSocket, engine: Engine, headers: HeaderMap) -> Option<()> {
    let mut waiting = VecDeque::new();
    loop {
        let json = match waiting.pop_front() {
            Some(json) => json,
            None => receive(&mut socket).await?,
        };
        let mut events = match ask(&engine, &headers, &json) {
            Ok(events) => events,
            Err(error) => {
                send(&mut socket, Err(error)).await?;
                continue;
            }
        };
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(event) => send(&mut socket, event).await?,
                    None => break,
                },
                // Listening meanwhile is how we learn that the client has left; then the stream is dropped.
                json = receive(&mut socket), if waiting.len() < MAX_WAITING => waiting.push_back(json?),
            }
        }
    }
}

/// The next request of a WebSocket; none when the client has left.
async fn receive(socket: &mut WebSocket) -> Option<Bytes> {
    loop {
        match socket.recv().await?.ok()? {
            json @ (Message::Text(_) | Message::Binary(_)) => return Some(json.into_data()),
            // Pings and a farewell are answered by the next `recv`.
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) => {}
        }
    }
}

/// Sends one event; none when the client has left.
async fn send(socket: &mut WebSocket, event: Result<Event, Error>) -> Option<()> {
    let (_, json) = frame(event);
    socket.send(Message::Text(json.into())).await.ok()
}

/// Whether the engine takes requests: for a load balancer, which reads the status.
async fn health(State(engine): State<Engine>) -> impl IntoResponse {
    let health = engine.health();
    let status = if health.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(health))
}

/// What the engine counts. The text is OpenMetrics, whose counters a reader of `text/plain` would take for untyped.
async fn metrics(State(engine): State<Engine>) -> impl IntoResponse {
    let openmetrics = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, openmetrics)], engine.metrics_text())
}

/// The stream of a request. Its work is done on the engine's threads, so the runtime is not held up here.
fn ask(engine: &Engine, headers: &HeaderMap, json: &[u8]) -> Result<ReplyStream, Error> {
    let not_utf8 = |_| Error::new(ErrorKind::InvalidText, "the request is not UTF-8, expected JSON");
    let mut request = Request::from_json(str::from_utf8(json).map_err(not_utf8)?)?;
    // Tenants share no answers and take turns. A service with logins names the tenant itself, whatever the client says.
    if let Some(tenant) = headers.get("X-Tenant-ID") {
        let not_ascii =
            |_| Error::new(ErrorKind::InvalidArgument, "`X-Tenant-ID` is not ASCII, expected a name");
        request = request.tenant(tenant.to_str().map_err(not_ascii)?);
    }
    engine.stream(request)
}

/// An event as it goes over the wire: its type, and its JSON, which is one line.
fn frame(event: Result<Event, Error>) -> (&'static str, String) {
    let event = match event {
        Ok(event) => event,
        Err(error) => return ("error", serde_json::json!({"type": "error", "error": error}).to_string()),
    };
    let kind = match event {
        Event::Analysis(_) => "analysis",
        Event::Chunk { .. } => "chunk",
        Event::Done(_) => "done",
        // A kind of a later release, under the name that an event without one has.
        _ => "message",
    };
    (kind, serde_json::to_string(&event).expect("events are plain data, which JSON can hold"))
}

/// An error that came before the first event.
struct Refusal(Error);

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Self(error) = self;
        let status = match error.kind() {
            ErrorKind::InvalidArgument
            | ErrorKind::InvalidText
            | ErrorKind::InputTooLong
            | ErrorKind::ContextFull
            | ErrorKind::UnknownModel => StatusCode::BAD_REQUEST,
            ErrorKind::Overloaded | ErrorKind::QuotaExceeded => StatusCode::TOO_MANY_REQUESTS,
            ErrorKind::Closed | ErrorKind::BackendUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            ErrorKind::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        // The header counts whole seconds; the JSON has the milliseconds.
        let seconds = |after: Duration| after.as_millis().div_ceil(1000).to_string();
        let retry_after = error.retry_after().map(|after| [(header::RETRY_AFTER, seconds(after))]);
        (status, retry_after, Json(error)).into_response()
    }
}

/// Longest request: far more than a message and its history need.
const MAX_REQUEST_BYTES: usize = 1 << 20;
/// Requests that a WebSocket may send ahead. More stay in the client's connection until there is room.
const MAX_WAITING: usize = 16;
