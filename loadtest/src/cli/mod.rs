//! The command line: what can be asked for, and from there to a checked `RunSpec`.

pub mod common;
pub mod scenarios;
pub mod upstream;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// A load generator for WebSocket relays and backends.
///
/// Without a command it runs the canonical workload (64 connections, 64-byte echoes, closed loop)
/// against an upstream that it starts itself, and prints two numbers.
#[derive(Parser, Debug)]
#[command(version, about)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Put a load on a WebSocket server and judge what comes back
    #[command(subcommand)]
    Run(Box<scenarios::Run>),
    /// Serve as the backend of a load test: echo, rooms, and faults on request
    Upstream(upstream::UpstreamArgs),
    /// Compare results: ratios to the first, with their spread
    Compare(CompareArgs),
    /// Write the HTML report of a result again
    Report(ReportArgs),
    /// Print the JSON schema of result.json
    Schema,
    /// (internal) a worker process of a run that one process cannot hold
    #[command(hide = true)]
    Worker,
}

#[derive(clap::Args, Debug)]
pub struct CompareArgs {
    /// result.json files or directories; results of the same label are rounds of one candidate
    #[arg(required = true, num_args = 2..)]
    pub results: Vec<PathBuf>,
    /// The label that ratios are to [default: that of the first result]
    #[arg(long, value_name = "LABEL")]
    pub reference: Option<String>,
    /// Print tables as Markdown
    #[arg(long)]
    pub markdown: bool,
    /// Write an HTML page with overlaid plots
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

#[derive(clap::Args, Debug)]
pub struct ReportArgs {
    /// A result.json file or the directory that holds it
    pub result: PathBuf,
    /// Where to write the page [default: report.html beside the result]
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}
