//! `ringwired`: the daemon. Arguments, then configuration, then run.

mod signals;

use std::convert::Infallible;
use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use engine::{Datapath, StartError};
use ringwired::api::{self, LogFilter, Operator, parse_log_filter};
use ringwired::args::{Args, Level};
use ringwired::config::{self, Config, ConfigError};
use ringwired::log;
use ringwired::reload::Reloader;
use ringwired::socket::{ApiSocket, SocketError};
use ringwired::systemd;
use snapshot::{Port, Status};
use tokio::runtime::Runtime;
use tracing_subscriber::EnvFilter;

use signals::{Hangup, Stop};

/// Threads for looks at the datapath: the sampler's and some clients'.
const STATUS_THREADS: usize = 4;
/// API requests have this long to end when the daemon stops.
const API_STOP_TIME: Duration = Duration::from_secs(1);

/// Why the daemon ends with an error. Its text is one line.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("ringwired: cannot start: {0}")]
    Socket(#[from] SocketError),
    #[error("ringwired: cannot start: {0}")]
    Datapath(#[from] StartError),
    #[error("ringwired: cannot start: {0}")]
    System(#[from] io::Error),
    #[error("ringwired: the datapath hangs and was not stopped cleanly")]
    Hangs,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            log::last_words(&failure);
            match failure {
                Failure::Config(_) => ExitCode::from(2),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

fn run(args: &Args) -> Result<(), Failure> {
    let cores = config::allowed_cores();
    let config = Config::load(&args.config, &cores)?;
    if args.check {
        let file = args.config.display();
        let engine::config::Config { cores, nics, sockets, guests, .. } = &config.datapath;
        let (cores, nics, sockets, guests) = (cores.len(), nics.len(), sockets.len(), guests.len());
        println!(
            "{file}: valid: workers {cores}, nics {nics}, guests {guests}, taps and raw sockets {sockets}"
        );
        return Ok(());
    }
    let (filter, not_understood) = log_filter(args.log);
    let (filter, log_filter) = LogFilter::new(filter);
    let _log = log::init(filter, args.log_format, args.log_lines)?;
    if let Some(problem) = not_understood {
        tracing::warn!("{problem}: info is logged");
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(STATUS_THREADS)
        .build()?;
    // The API's socket comes first: it is what tells that the same daemon is running already.
    let (signals, socket) = runtime.block_on(async {
        let signals = signals::install()?;
        Ok::<_, Failure>((signals, ApiSocket::bind(&config.api).await?))
    })?;
    let datapath = Arc::new(Datapath::start(config.datapath)?);
    let reloader = Reloader::new(args.config.clone(), cores, config.api, datapath.clone());
    let operator = Arc::new(Operator { reloader, log: log_filter });
    let signal = serve(&runtime, socket, signals, datapath.clone(), operator.clone());
    tracing::info!("{signal}: stopping");
    systemd::stopping();
    // No reload is left half done.
    operator.reloader.stop();
    drop(operator);
    runtime.shutdown_timeout(API_STOP_TIME);
    stop(Arc::into_inner(datapath).ok_or(Failure::Hangs)?);
    Ok(())
}

/// Serves the API until a signal, whose name it returns. The socket is gone afterwards.
fn serve(
    runtime: &Runtime,
    socket: ApiSocket,
    (mut stop, hangup): (Stop, Hangup),
    datapath: Arc<Datapath>,
    operator: Arc<Operator>,
) -> &'static str {
    runtime.block_on(async {
        tracing::info!("ready, control API on {}", socket.path().display());
        systemd::ready(socket.path());
        tokio::select! {
            never = api::serve(&socket, datapath.clone(), operator.clone()) => match never {},
            never = reload_when_asked(hangup, operator.clone()) => match never {},
            never = systemd::watch(datapath, socket.path()) => match never {},
            signal = stop.next() => signal,
        }
    })
}

async fn reload_when_asked(mut hangup: Hangup, operator: Arc<Operator>) -> Infallible {
    loop {
        hangup.next().await;
        tracing::info!("SIGHUP: reloading");
        let operator = operator.clone();
        // It has logged what came of it.
        let _ = tokio::task::spawn_blocking(move || operator.reloader.reload(false)).await;
    }
}

/// Gives the rings back, and says what went where.
fn stop(datapath: Datapath) {
    let status = datapath.shutdown();
    for port in &status.ports {
        tracing::info!(port = port.name, "{}", counters(std::slice::from_ref(port)));
    }
    let Status { ports, uptime_seconds, .. } = &status;
    let total = counters(ports);
    tracing::info!("stopped after {uptime_seconds:.1} s, {} ports: {total}", ports.len());
}

fn counters(ports: &[Port]) -> String {
    let sum = |count: fn(&Port) -> u64| ports.iter().map(count).sum::<u64>();
    let (rx, tx, held) = (sum(|p| p.rx_packets), sum(|p| p.tx_packets), sum(|p| p.held));
    let drops = sum(|p| p.drops.values().sum());
    format!("rx {rx}, tx {tx}, held {held}, drops {drops} packets")
}

/// What is logged: as the command line has it, else the environment; and what is wrong with that.
fn log_filter(level: Option<Level>) -> (EnvFilter, Option<String>) {
    let environment = std::env::var(EnvFilter::DEFAULT_ENV).ok().filter(|text| !text.is_empty());
    let wanted = match (level, &environment) {
        (Some(Level::Error), _) => "error",
        (Some(Level::Warn), _) => "warn",
        (Some(Level::Info), _) | (None, None) => "info",
        (Some(Level::Debug), _) => "debug",
        (Some(Level::Trace), _) => "trace",
        (None, Some(text)) => text,
    };
    match parse_log_filter(wanted) {
        Ok(filter) => (filter, None),
        Err(problem) => (EnvFilter::new("info"), Some(format!("{}: {problem}", EnvFilter::DEFAULT_ENV))),
    }
}
