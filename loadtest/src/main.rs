//! Command line in, exit code out: 0 fine, 1 the verdict failed, 2 wrong usage, 3 unusable target,
//! 4 our own trouble, 130 interrupted (after reporting).

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use loadtest::cli::scenarios::Run;
use loadtest::cli::{Cli, Command, CompareArgs, ReportArgs};
use loadtest::control::conduct::Conductor;
use loadtest::control::crew;
use loadtest::control::preflight::{self, Unusable};
use loadtest::control::upstream_process::UpstreamProcess;
use loadtest::report::progress::Progress;
use loadtest::report::result::{INTERRUPTED, RunResult};
use loadtest::report::{compare, html, table};
use loadtest::spec::RunSpec;
use loadtest::upstream;

const FAILED: u8 = 1;
const USAGE: u8 = 2;
const UNUSABLE: u8 = 3;
const TROUBLE: u8 = 4;
const INTERRUPT: u8 = 130;

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        None => canonical(),
        Some(Command::Run(run)) => run_scenario(&run),
        Some(Command::Upstream(args)) => upstream::run(args.into()).map(|()| 0),
        Some(Command::Compare(args)) => compare_results(&args).map(|()| 0),
        Some(Command::Report(args)) => report_again(&args).map(|()| 0),
        Some(Command::Schema) => print_schema().map(|()| 0),
        Some(Command::Worker) => crew::run_process().map(|()| 0),
    };
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("loadtest: {error:#}");
            ExitCode::from(if error.is::<Unusable>() { UNUSABLE } else { TROUBLE })
        }
    }
}

/// 64 connections, 64 bytes, closed loop, against an upstream of our own: two numbers.
fn canonical() -> Result<u8> {
    let words = ["loadtest", "run", "echo", "--duration", "5s"];
    let Some(Command::Run(run)) = Cli::parse_from(words).command else {
        anyhow::bail!("the canonical workload is not a run");
    };
    let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let result = async_runtime()?.block_on(async {
        let upstream = UpstreamProcess::start(anywhere, &[]).await?;
        let spec = run.spec(Some(upstream.address))?;
        preflight::check(&spec)?;
        let progress = Progress::new(false);
        Conductor::new(spec, Vec::new(), progress, Some(upstream))?.run("canonical".into()).await
    })?;
    println!("{:.0} echoes per second", result.throughput.received_per_s);
    println!("{} at the 99th percentile", table::time(result.latency.summary.p99_us));
    Ok(exit_code(&result))
}

fn run_scenario(run: &Run) -> Result<u8> {
    let result = async_runtime()?.block_on(async {
        let upstream = match run {
            Run::Faults(args) => own_upstream(args).await?,
            _ => None,
        };
        let spec = match run.spec(upstream.as_ref().map(|upstream| upstream.address)) {
            Ok(spec) => spec,
            Err(error) => return Ok(Err(error)),
        };
        preflight::check(&spec)?;
        conduct(run, spec, upstream).await.map(Ok)
    })?;
    match result {
        Ok(result) => {
            publish(run, &result)?;
            Ok(exit_code(&result))
        }
        Err(error) => {
            eprintln!("loadtest: {error:#}");
            Ok(USAGE)
        }
    }
}

async fn own_upstream(args: &loadtest::cli::scenarios::Faults) -> Result<Option<UpstreamProcess>> {
    if args.fault.is_clients_own() && args.upstream_listen.is_none() {
        return Ok(None);
    }
    let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listen = args.upstream_listen.unwrap_or(anywhere);
    UpstreamProcess::start(listen, &args.upstream_cpus).await.map(Some)
}

async fn conduct(run: &Run, spec: RunSpec, upstream: Option<UpstreamProcess>) -> Result<RunResult> {
    let common = run.common();
    let label = common.label.clone().unwrap_or_else(|| spec.name.clone());
    let progress = Progress::new(common.quiet);
    Conductor::new(spec, common.watch_pid.clone(), progress, upstream)?.run(label).await
}

fn publish(run: &Run, result: &RunResult) -> Result<()> {
    let common = run.common();
    if let Some(directory) = &common.output {
        result.write(directory)?;
        html::write(result, &directory.join("report.html"))?;
    }
    if common.json {
        println!("{}", serde_json::to_string_pretty(result)?);
    } else {
        println!("{}", table::render(result));
    }
    Ok(())
}

fn exit_code(result: &RunResult) -> u8 {
    match (&result.ended_early, result.verdict.pass) {
        (_, false) => FAILED,
        (Some(why), true) if why == INTERRUPTED => INTERRUPT,
        _ => 0,
    }
}

fn compare_results(args: &CompareArgs) -> Result<()> {
    let results = args.results.iter().map(|path| RunResult::read(path)).collect::<Result<Vec<_>>>()?;
    let comparison = compare::Comparison::new(&results, args.reference.as_deref());
    print!("{}", comparison.table(args.markdown));
    if let Some(path) = &args.html {
        html::write_comparison(&comparison, &results, path)?;
    }
    Ok(())
}

fn report_again(args: &ReportArgs) -> Result<()> {
    let result = RunResult::read(&args.result)?;
    let beside = match args.result.is_dir() {
        true => args.result.join("report.html"),
        false => args.result.parent().unwrap_or(Path::new(".")).join("report.html"),
    };
    let path = args.html.clone().unwrap_or(beside);
    html::write(&result, &path)?;
    println!("{}", table::render(&result));
    println!("wrote {}", path.display());
    Ok(())
}

fn print_schema() -> Result<()> {
    println!("{}", serde_json::to_string_pretty(&schemars::schema_for!(RunResult))?);
    Ok(())
}

fn async_runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting tokio")
}
