//! What a server does in the background, next to answering requests.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use formats::error_chain;
use formats::tuf::UnixTime;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::alarm;
use crate::body::Body;
use crate::config::Limits;
use crate::fill::Fills;
use crate::fleet::{Fleet, StoreFailure};
use crate::handle::{App, lists};
use crate::lock::LockRw as _;
use crate::refresh;
use crate::store::RELIST;
use crate::store::StoreError;
use crate::store::gc::Collected;

/// 1 min: as often as a Prometheus asks.
const COUNT: Duration = Duration::from_secs(60);

/// Starts all chores; they end when the set is dropped.
pub(super) fn start(app: &Arc<App>, metrics: Option<TcpListener>) -> JoinSet<()> {
    let mut chores = JoinSet::new();
    chores.spawn(collect_garbage(Arc::clone(app)));
    chores.spawn(renew_timestamps(Arc::clone(app)));
    chores.spawn(watch_timestamps(Arc::clone(app)));
    chores.spawn(watch_room(Arc::clone(app)));
    chores.spawn(relist(Arc::clone(app)));
    chores.spawn(rest_uploads(Arc::clone(app)));
    chores.spawn(count_nodes(Arc::clone(app)));
    if let Some(listener) = metrics {
        chores.spawn(serve_metrics(listener, Arc::clone(app)));
    }
    chores
}

/// How often to look for uploads that expired.
pub(super) fn sweep_every(limits: &Limits) -> Duration {
    (limits.session_expiry / 4).clamp(Duration::from_millis(50), Duration::from_secs(60))
}

/// Deletes uploads that expired.
pub(super) fn sweep_uploads(app: &Arc<App>) {
    let app = Arc::clone(app);
    tokio::task::spawn_blocking(move || {
        let expired = app.uploads.expire(&app.store, app.limits.session_expiry);
        if expired > 0 {
            tracing::info!(expired, "deleted expired uploads");
        }
    });
}

/// Closes idle uploads.
async fn rest_uploads(app: Arc<App>) {
    let every = (app.limits.upload_rest / 3).max(Duration::from_millis(50));
    loop {
        tokio::time::sleep(every).await;
        let app = Arc::clone(&app);
        let work = move || app.uploads.rest(&app.store, app.limits.upload_rest);
        if let Err(panic) = tokio::task::spawn_blocking(work).await {
            tracing::error!(%panic, "closing idle uploads failed");
        }
    }
}

/// Adds up, now and then, what nodes do: for the metrics.
async fn count_nodes(app: Arc<App>) {
    while app.fleet.is_some() {
        let counting = Arc::clone(&app);
        let look = |fleet: &Fleet| Ok::<_, StoreFailure>((fleet.overview()?, fleet.locks()?));
        let work = move || counting.fleet.as_ref().map(look).transpose();
        match tokio::task::spawn_blocking(work).await {
            Ok(Ok(Some((all, locks)))) => {
                app.metrics.fleet(&all);
                app.metrics.holders(&locks);
            }
            Ok(Ok(None)) => return,
            Ok(Err(error)) => tracing::error!(error = error_chain(&error), "counting nodes failed"),
            Err(panic) => tracing::error!(%panic, "counting nodes failed"),
        }
        tokio::time::sleep(COUNT).await;
    }
}

/// Looks, now and then, what other servers on the same storage did.
async fn relist(app: Arc<App>) {
    while app.store.is_shared() {
        tokio::time::sleep(RELIST).await;
        let store = Arc::clone(&app.store);
        match tokio::task::spawn_blocking(move || store.relist()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::error!(error = error_chain(&error), "listing the storage failed")
            }
            Err(panic) => tracing::error!(%panic, "listing the storage failed"),
        }
    }
}

/// Throws garbage away, now and then. Ends between two steps when the server does.
async fn collect_garbage(app: Arc<App>) {
    let Some(collect) = app.collect.filter(|_| !app.read_only) else { return };
    loop {
        tokio::time::sleep(collect.interval).await;
        let store = Arc::clone(&app.store);
        let work = move || -> Result<_, StoreError> {
            let states = store.retire(collect.states)?;
            Ok((states, store.collect(collect.grace, SystemTime::now(), collect.states)?))
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(Ok((states, done))) => {
                app.metrics.collection(true, done.bytes);
                let Collected { links, blobs, bytes, kept, .. } = done;
                tracing::info!(states, links, blobs, bytes, kept, "garbage collected");
            }
            Ok(Err(error)) => {
                app.metrics.collection(false, 0);
                tracing::error!(error = error_chain(&error), "garbage collection failed");
            }
            Err(panic) => tracing::error!(%panic, "garbage collection failed"),
        }
    }
}

fn unix_now() -> UnixTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |it| it.as_secs());
    UnixTime::from_secs(i64::try_from(since).unwrap_or(i64::MAX))
}

/// Renews timestamps, if there is a key for it.
async fn renew_timestamps(app: Arc<App>) {
    let Some(refresher) = app.refresher.clone() else { return };
    let mut turns = tokio::time::interval(app.limits.alarm_every);
    turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        turns.tick().await;
        let (store, refresher) = (Arc::clone(&app.store), refresher.clone());
        match tokio::task::spawn_blocking(move || refresher.turn(&store, unix_now())).await {
            Ok(signs) => {
                let signs = vec![signs];
                refresh::log_changes(&app.signs(), &signs);
                app.metrics.signs(&signs);
                *app.signs.write_locked() = Arc::new(signs);
            }
            Err(panic) => tracing::error!(%panic, "renewing timestamps failed"),
        }
    }
}

/// Looks, now and then, how fresh the TUF timestamps are.
async fn watch_timestamps(app: Arc<App>) {
    let mut turns = tokio::time::interval(app.limits.alarm_every);
    turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        turns.tick().await;
        let looking = Arc::clone(&app);
        let look = move || {
            let App { store, tuf, anchor, alarm_before, .. } = &*looking;
            alarm::freshness(store, tuf, anchor.as_ref(), unix_now(), *alarm_before)
        };
        match tokio::task::spawn_blocking(look).await {
            Ok(Ok(found)) => {
                alarm::log_changes(&app.fresh(), &found);
                app.metrics.fresh(&found);
                *app.fresh.write_locked() = Arc::new(found);
            }
            Ok(Err(error)) => {
                tracing::error!(error = error_chain(&error), "reading timestamps failed")
            }
            Err(panic) => tracing::error!(%panic, "reading timestamps failed"),
        }
    }
}

/// Looks, now and then, how much room there is for tags and releases.
async fn watch_room(app: Arc<App>) {
    let mut turns = tokio::time::interval(app.limits.alarm_every);
    turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        turns.tick().await;
        let looking = Arc::clone(&app);
        match tokio::task::spawn_blocking(move || Fills::look(&looking.store, &looking.tuf)).await {
            Ok(Ok(found)) => {
                found.log_changes(&app.fills());
                app.metrics.fills(&found);
                *app.fills.write_locked() = Arc::new(found);
            }
            Ok(Err(error)) => {
                tracing::error!(error = error_chain(&error), "reading how full it is failed")
            }
            Err(panic) => tracing::error!(%panic, "reading how full it is failed"),
        }
    }
}

/// `/metrics` and `/healthz` on an address of their own, which the operator keeps to himself.
async fn serve_metrics(listener: TcpListener, app: Arc<App>) {
    let places = Arc::new(Semaphore::new(16));
    loop {
        let place = Arc::clone(&places).acquire_owned().await;
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let app = Arc::clone(&app);
        tokio::spawn(async move {
            let _place = place;
            let limits = app.limits.clone();
            let service = service_fn(|request: Request<Incoming>| {
                let found = match request.uri().path() {
                    "/metrics" => lists::metrics(&app),
                    "/healthz" => lists::health(&app),
                    _ => {
                        let mut nothing = Response::new(Body::empty());
                        *nothing.status_mut() = StatusCode::NOT_FOUND;
                        nothing
                    }
                };
                std::future::ready(Ok::<_, io::Error>(found))
            });
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(limits.head);
            let connection = builder.serve_connection(TokioIo::new(stream), service);
            // A scraper that goes away in the middle has what it wanted.
            let _ = tokio::time::timeout(limits.idle, connection).await;
        });
    }
}
