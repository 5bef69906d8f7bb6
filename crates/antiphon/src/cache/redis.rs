//! The shared tier in Redis, or in a server that speaks like it.
//!
//! One connection, pipelined. After a call that failed or was given up it is dropped: no late reply can be taken for that of
//! the next call.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, FromRedisValue, RedisError};
use tokio::runtime::Runtime;

use super::record::MAX_BYTES;
use super::tier::BUDGET;
use crate::error::{Error, ErrorKind, Result};
use crate::plugin::{PluginError, SharedTier};

/// A client of one server.
pub(crate) struct Redis {
    client: Client,
    /// One thread that reads and writes the socket; the callers wait beside it. None once it is dropped.
    runtime: Option<Runtime>,
    connection: Mutex<Option<MultiplexedConnection>>,
}

impl Redis {
    /// `url` is `redis://[user:password@]host[:port][/db]`. Nothing is connected yet: a server that is down is no reason not
    /// to open an engine.
    pub(crate) fn new(url: &str) -> Result<Self> {
        // The URL may hold a password: it is not repeated, and neither are the client's own words about it.
        let what = "configuration key `cache.shared_tier` is no address, expected redis://[user:password@]host[:port][/db]";
        let client = Client::open(url).map_err(|_| Error::new(ErrorKind::InvalidConfig, what))?;
        let runtime = antiphon_kernels::with_signals_blocked(|| {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder.worker_threads(1).thread_name("antiphon-redis").enable_all().build()
        });
        let runtime = runtime.map_err(|error| {
            Error::with_source(ErrorKind::Io, format!("starting a thread failed: {error}"), error)
        })?;
        Ok(Self { client, runtime: Some(runtime), connection: Mutex::new(None) })
    }

    fn query<T: FromRedisValue + Send>(&self, command: &Cmd) -> Result<T, PluginError> {
        let asked = async {
            let mut connection = self.connection().await?;
            command.query_async(&mut connection).await
        };
        let runtime = self.runtime.as_ref().expect("it is there until it is dropped");
        let answer = runtime.block_on(async { tokio::time::timeout(BUDGET, asked).await });
        let failure = match answer {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => PluginError::new(describe(&error)),
            Err(_) => PluginError::new(format!("no answer within {} ms", BUDGET.as_millis())),
        };
        *self.slot() = None;
        Err(failure)
    }

    async fn connection(&self) -> Result<MultiplexedConnection, RedisError> {
        let known = self.slot().clone();
        if let Some(connection) = known {
            return Ok(connection);
        }
        // The budget of the call bounds connecting, too.
        let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let connection = self.client.get_multiplexed_async_connection_with_config(&config).await?;
        *self.slot() = Some(connection.clone());
        Ok(connection)
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Option<MultiplexedConnection>> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // Waiting for its thread is not allowed where the host drops the engine inside a runtime of its own.
        self.runtime.take().into_iter().for_each(Runtime::shutdown_background);
    }
}

impl SharedTier for Redis {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, PluginError> {
        // Not GET: what somebody else stored there may be of any size.
        let mut command = redis::cmd("GETRANGE");
        let value: Vec<u8> = self.query(command.arg(key).arg(0).arg(MAX_BYTES))?;
        Ok((!value.is_empty()).then_some(value))
    }

    fn put(&self, key: &[u8], value: &[u8], ttl: Duration) -> Result<(), PluginError> {
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1);
        self.query(redis::cmd("SET").arg(key).arg(value).arg("PX").arg(ttl_ms))
    }

    fn remove(&self, key: &[u8]) -> Result<(), PluginError> {
        self.query(redis::cmd("UNLINK").arg(key))
    }
}

/// The kind of an error, and the server's code for it: its details may quote what was sent.
fn describe(error: &RedisError) -> String {
    match error.code() {
        Some(code) => format!("the server answered {code}"),
        None => error.category().to_owned(),
    }
}
