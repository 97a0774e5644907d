//! The socket and its connections, and the end of the server.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::time::Instant;

use super::app::App;
use super::engine::{EngineThread, Start};
use super::routes::routes;
use super::settings::Settings;
use super::socket::Socket;
use crate::output;

/// The time that the headers of a request may take to arrive.
const HEADER_TIME: Duration = Duration::from_secs(10);
/// Most bytes of the headers of a request.
const MAX_HEADER_BYTES: usize = 64 << 10;
/// The time in which a client has to take the next byte of a response.
const WRITE_TIME: Duration = Duration::from_secs(30);
/// Most open connections; more wait in the backlog of the socket.
const MAX_CONNECTIONS: usize = 512;
/// Threads that serve connections. They only move bytes: the engine computes on threads of its own.
const CONNECTION_THREADS: usize = 2;
/// The time between two looks at the engine while the server ends.
const LOOK: Duration = Duration::from_millis(20);
/// The time that the engine gets to leave its last step, and connections to send their last bytes.
const LAST_STEP: Duration = Duration::from_secs(10);

/// Serves the model that `start` loads, until a signal ends it.
///
/// # Errors
/// An address that cannot be listened on, and the failure of `start`.
pub(crate) fn serve(settings: Settings, start: Start) -> Result<()> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(CONNECTION_THREADS).enable_all().build()?;
    let result = runtime.block_on(run(settings, start));
    // Connections had `LAST_STEP` to close; this drops the others.
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

async fn run(settings: Settings, start: Start) -> Result<()> {
    let address = (settings.host.clone(), settings.port);
    let listener = TcpListener::bind(&address).await;
    let (host, port) = &address;
    let listener =
        listener.with_context(|| format!("cannot listen on {host}:{port}")).map_err(|error| anyhow!("{error:#}"))?;
    output::note(format_args!("listening on http://{}", listener.local_addr()?));
    let app = Arc::new(App::new(settings));
    let (failed, mut failure) = oneshot::channel();
    let engine = EngineThread::spawn(app.clone(), start, failed)?;
    let router = routes(&app);
    let (closing, closed) = watch::channel(false);
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let accept = async {
        // The semaphore is never closed, so this loop ends with the server.
        while let Ok(place) = places.clone().acquire_owned().await {
            // Errors such as too many open files pass.
            match listener.accept().await {
                Ok((stream, _)) => {
                    let connection = connection(app.clone(), stream, router.clone(), closed.clone());
                    tokio::spawn(async move {
                        connection.await;
                        drop(place);
                    });
                }
                Err(_) => tokio::time::sleep(LOOK).await,
            }
        }
    };
    tokio::pin!(accept);
    tokio::select! {
        () = &mut accept => {}
        () = signal() => {}
        error = &mut failure => return Err(error.unwrap_or_else(|_| anyhow!("the engine stopped: please report it"))),
    }
    if app.engine().is_err() {
        return Ok(());
    }
    output::note("shutting down: running requests are finished, new ones are refused");
    app.drain();
    let drain = drain(&engine, app.settings.drain_time);
    tokio::select! {
        () = &mut accept => {}
        () = drain => {}
        () = signal() => output::note("shutting down at once"),
    }
    let _ = closing.send(true);
    let until = Instant::now() + LAST_STEP;
    while Instant::now() < until && app.metrics.open_connections() > 0 {
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// Waits until the engine has done its jobs, and stops it where that takes too long.
async fn drain(engine: &EngineThread, time: Duration) {
    let deadline = Instant::now() + time;
    while !engine.is_finished() && Instant::now() < deadline {
        tokio::time::sleep(LOOK).await;
    }
    engine.stop();
    let until = Instant::now() + LAST_STEP;
    while !engine.is_finished() && Instant::now() < until {
        tokio::time::sleep(LOOK).await;
    }
}

async fn connection(app: Arc<App>, stream: TcpStream, router: Router, mut closed: watch::Receiver<bool>) {
    let _guard = app.metrics.connection();
    // Frames of one token are small and must not wait for more.
    let _ = stream.set_nodelay(true);
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIME).max_buf_size(MAX_HEADER_BYTES);
    let stream = TokioIo::new(Socket::new(stream, WRITE_TIME));
    let connection = builder.serve_connection(stream, TowerToHyperService::new(router));
    tokio::pin!(connection);
    // A client may go away at any time: errors of a connection are not reported.
    tokio::select! {
        _ = &mut connection => return,
        _ = closed.wait_for(|closed| *closed) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = connection.await;
}

/// Waits for a signal that ends the server.
async fn signal() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let Ok(mut terminate) = signal(SignalKind::terminate()) else { return std::future::pending().await };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    }
    #[cfg(not(unix))]
    {
        let _ = tokio::signal::ctrl_c().await;
    }
}
