//! `ringway`: command line -> checked config -> workers and control plane -> exit code.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use ringway::config::{self, Address, Config, Derived, Flags, Target};
use ringway::control::demo::Demo;
use ringway::control::{self, Source, logs};
use ringway::worker;
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
Signals: SIGTERM and SIGQUIT drain (Close 1001 to everyone); a second one, or SIGINT, stops at once; SIGHUP reads the
configuration again and ends no session.
Exit codes: 0 stopped as asked, 1 refused or failed, 2 wrong usage.
--options and --example describe every option of the file; -T prints them as they are in effect.";

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
    /// Print every option, its default and its meaning, as Markdown: docs/options.md
    #[arg(long)]
    options: bool,
    /// Print a file with every option at its default: ringway.example.toml
    #[arg(long)]
    example: bool,
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
    let outcome = match cli.command {
        None => run(cli.run),
        Some(Command::Run(args)) => run(args),
        Some(Command::Demo(args)) => demo(args),
    };
    outcome.unwrap_or_else(|refusal| {
        // Who closed stderr wants to hear nothing.
        let _ = writeln!(io::stderr(), "{refusal}");
        ExitCode::FAILURE
    })
}

fn run(args: RunArgs) -> Result<ExitCode, String> {
    if args.options {
        return print(&config::options());
    }
    if args.example {
        return print(&config::example());
    }
    let source = Source::new(args.config, args.flags);
    let name = source.name();
    let config = source.load().map_err(|faults| faults.to_string())?;
    if args.test_print {
        let derived = Derived { nameservers: control::system_nameservers(), ..worker::derived(&config) };
        print(&config::print(&config, Some(&derived)))
    } else if args.test {
        for warning in config::warnings(&config).into_iter().chain(worker::shortfall(&config)) {
            let _ = writeln!(io::stderr(), "{name}: warning: {warning}");
        }
        print(&format!("{name}: ok\n"))
    } else {
        relay(config, source, &name, None)
    }
}

fn demo(args: DemoArgs) -> Result<ExitCode, String> {
    let refusal = |error: io::Error| format!("the demo's ports cannot be opened: {error}");
    let demo = Demo::bind().map_err(refusal)?;
    let flags = Flags {
        listen: args.listen,
        backend: vec![Target::Address(Address::Inet(demo.chat_address().map_err(refusal)?))],
        log_level: args.log_level,
        ..Flags::default()
    };
    let source = Source::new(None, flags);
    let config = source.load().map_err(|faults| faults.to_string())?;
    relay(config, source, "demo", Some(demo))
}

fn print(text: &str) -> Result<ExitCode, String> {
    let printed = io::stdout().write_all(text.as_bytes());
    printed.map(|()| ExitCode::SUCCESS).map_err(|error| format!("cannot write to stdout: {error}"))
}

/// Until a signal or a fault. From here on all that is said goes to the log.
fn relay(config: Config, source: Source, name: &str, demo: Option<Demo>) -> Result<ExitCode, String> {
    // Before any thread is started, so that no thread but this one is interrupted by a signal.
    let held = control::hold().map_err(|error| format!("signals cannot be held back: {error}"))?;
    let logs = logs::start(config.log_level);
    info!("ringway {} starts, configured by: {name}", env!("CARGO_PKG_VERSION"));
    let ended = control::run(config, source, logs.level(), held, demo);
    if let Err(error) = &ended {
        error!("{error}");
    }
    logs.finish();
    Ok(if ended.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
