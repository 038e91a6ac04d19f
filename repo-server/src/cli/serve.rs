//! `serve`.

use std::path::PathBuf;

use formats::error_chain;
use formats::reason::Exit;
use tokio::signal::unix::{SignalKind, signal};

use super::args::{LogFormat, Serve};
use super::output::{print_json, say};
use crate::{Reloader, Server, ServerError};

pub(super) fn serve(args: &Serve, json: bool) -> Result<Exit, ServerError> {
    start_log(args)?;
    let failed = |source| ServerError::Listen { address: args.listen.to_string(), source };
    let runtime = crate::threads().build();
    let runtime = runtime.map_err(|source| ServerError::Io {
        doing: "start the threads of",
        path: PathBuf::from("this process"),
        source,
    })?;
    runtime.block_on(async {
        let server = Server::bind(args.config()?).await?;
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;
        say(&format!("listening on {}", server.url()));
        if let Some(address) = server.metrics_addr() {
            say(&format!("metrics on http://{address}/metrics"));
        }
        if json {
            print_json(&serde_json::json!({ "ok": true, "url": server.url() }))?;
        }
        // Fails when systemd did not start this program.
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
        let reloader = server.reloader();
        tokio::spawn(async move {
            while hangup.recv().await.is_some() {
                reload(&reloader);
            }
        });
        server
            .run(async {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
                tracing::info!("stopping");
            })
            .await;
        Ok(Exit::Done)
    })
}

/// On SIGHUP. Files that are wrong change nothing: the server goes on with what it had.
fn reload(reloader: &Reloader) {
    match reloader.reload() {
        Ok(()) => tracing::info!("certificates and tokens reloaded"),
        Err(error) => {
            tracing::error!(
                error = error_chain(&error),
                "reload failed; the previous certificates and tokens stay in use"
            );
        }
    }
}

fn start_log(args: &Serve) -> Result<(), ServerError> {
    let filter = tracing_subscriber::EnvFilter::try_new(&args.log)
        .map_err(|error| ServerError::Config(format!("--log {}: {error}", args.log)))?;
    let lines = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(filter)
        // It would be told on the same standard error, with a panic where that is full or gone.
        .log_internal_errors(false);
    match args.log_format {
        // Colours are escapes, and of those none passes.
        LogFormat::Text => lines.with_ansi(false).with_writer(storage::log::stderr).init(),
        // JSON escapes what ends a line by itself.
        LogFormat::Json => lines.json().flatten_event(true).init(),
    }
    Ok(())
}
