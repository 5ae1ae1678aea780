//! `ringway`: command line -> checked config -> workers and control plane -> exit code.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand};
use ringway::config::{self, Address, Config, Flags, Machine, Target};
use ringway::control::demo::Demo;
use ringway::control::{self, logs};
use ringway::worker::Workers;
use tokio::sync::mpsc;
use tracing::{error, info};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A WebSocket edge relay on io_uring.
///
/// Stands in front of WebSocket backends, checks every handshake and every frame header, and moves the frames.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true, after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: RunArgs,
}

const AFTER_HELP: &str = "\
Signals: SIGTERM and SIGQUIT drain (Close 1001 to everyone); a second one, or SIGINT, stops at once.
Exit codes: 0 stopped as asked, 1 refused or failed, 2 wrong usage.
Every option of the file is described in ringway.example.toml; -T prints them as they are in effect.";

#[derive(Subcommand)]
enum Command {
    /// Relay (the default)
    Run(RunArgs),
    /// Relay to an embedded chat backend, with a chat page for the browser
    Demo(DemoArgs),
}

#[derive(Args)]
struct RunArgs {
    /// The configuration file
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Check the configuration, print every fault with file, line and column, and exit with 0 or 1
    #[arg(short, long)]
    test: bool,
    /// As -t, and print the effective configuration as a file
    #[arg(short = 'T', long)]
    test_print: bool,
    #[command(flatten)]
    flags: Flags,
}

#[derive(Args)]
struct DemoArgs {
    /// Listen here instead of 127.0.0.1:8080
    #[arg(long, value_name = "ADDR")]
    listen: Vec<Address>,
    /// error, warn, info, debug or trace
    #[arg(long, value_name = "L", env = "RINGWAY_LOG", hide_env_values = true)]
    log_level: Option<config::LogLevel>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command {
        None => run(cli.run),
        Some(Command::Run(args)) => run(args),
        Some(Command::Demo(args)) => demo(args),
    }
}

fn run(args: RunArgs) -> ExitCode {
    let file = args.config.as_deref();
    match config::load(file, &args.flags, &Machine::this()) {
        Err(faults) => {
            complain(format_args!("{faults}"));
            ExitCode::FAILURE
        }
        Ok(config) if args.test_print => say(&config::print(&config)),
        Ok(_) if args.test => say(&format!("{}: ok\n", source(file))),
        Ok(config) => relay(config, &source(file), None),
    }
}

fn demo(args: DemoArgs) -> ExitCode {
    let demo = match Demo::bind().and_then(|demo| Ok((demo.chat_address()?, demo))) {
        Ok(demo) => demo,
        Err(error) => {
            complain(format_args!("the demo's ports cannot be opened: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let (chat, demo) = demo;
    let flags = Flags {
        listen: args.listen,
        backend: vec![Target::Address(Address::Inet(chat))],
        log_level: args.log_level,
        ..Flags::default()
    };
    match config::load(None, &flags, &Machine::this()) {
        Ok(config) => relay(config, "the demo", Some(demo)),
        Err(faults) => {
            complain(format_args!("{faults}"));
            ExitCode::FAILURE
        }
    }
}

fn relay(config: Config, source: &str, demo: Option<Demo>) -> ExitCode {
    let held = match control::hold() {
        Ok(held) => held,
        Err(error) => {
            complain(format_args!("signals cannot be held back: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let logs = logs::start(config.log_level);
    info!("ringway {} starts with the configuration of {source}", env!("CARGO_PKG_VERSION"));
    let config = Arc::new(config);
    let (exited, exits) = mpsc::unbounded_channel();
    let started = Workers::start(config.clone(), move |worker| {
        // The control plane may have given up waiting.
        let _ = exited.send(worker);
    });
    let ended = match started {
        Ok(workers) => control::run(&config, workers, exits, held, demo).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    if let Err(error) = &ended {
        error!("{error}");
    }
    logs.finish();
    if ended.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn source(file: Option<&Path>) -> String {
    file.map_or_else(|| "command line".into(), |path| path.display().to_string())
}

fn say(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn complain(text: std::fmt::Arguments<'_>) {
    // Who closed stderr wants to hear nothing.
    let _ = writeln!(io::stderr(), "{text}");
}
