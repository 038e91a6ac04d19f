//! A server on threads of its own, for programs that are not asynchronous.

use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;

use super::{Reloader, Server};
use crate::config::Config;
use crate::error::ServerError;
use crate::memory;

/// The threads of a server: some for the network, and at most 64 that wait for disks, which is more
/// than a disk has turns.
///
/// A thread that came once stays: where the system allows no further one later, work waits for those
/// that are there, and never for good.
pub fn threads() -> tokio::runtime::Builder {
    memory::share_heaps();
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder
        .max_blocking_threads(64)
        .thread_keep_alive(Duration::from_secs(365 * 86_400))
        .enable_all();
    builder
}

/// A server on threads of its own, for programs that are not asynchronous: demos, tests. Stops
/// when dropped.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    metrics: Option<SocketAddr>,
    reloader: Reloader,
    url: String,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Starts a server and comes back when it accepts connections.
pub fn start(config: Config) -> Result<Running, ServerError> {
    let failed = |error| ServerError::io("start the threads of", "this process")(error);
    let runtime = threads().worker_threads(2).build().map_err(failed)?;
    let server = runtime.block_on(Server::bind(config))?;
    let (address, url) = (server.local_addr(), server.url());
    let (metrics, reloader) = (server.metrics_addr(), server.reloader());
    let (stop, stopped) = oneshot::channel();
    let serve = move || {
        runtime.block_on(server.run(async {
            // A sender dropped without a word means the same.
            let _ = stopped.await;
        }));
    };
    let thread = std::thread::Builder::new().spawn(serve).map_err(failed)?;
    Ok(Running { address, metrics, reloader, url, stop: Some(stop), thread: Some(thread) })
}

impl Running {
    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// `https://…` or `http://…`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where metrics have an address of their own.
    pub fn metrics_addr(&self) -> Option<SocketAddr> {
        self.metrics
    }

    /// Reads certificates and tokens again.
    pub fn reload(&self) -> Result<(), ServerError> {
        self.reloader.reload()
    }

    /// Stops it and waits until it has.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if let Some(stop) = self.stop.take() {
            // It may have ended already.
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the server's thread panicked");
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}
