//! An upstream of our own in a process of its own: started, stopped, killed and commanded.

use std::net::SocketAddr;
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};

use crate::upstream;

pub struct UpstreamProcess {
    child: Child,
    stdin: ChildStdin,
    pub address: SocketAddr,
    cpus: Vec<u32>,
}

impl UpstreamProcess {
    pub async fn start(listen: SocketAddr, cpus: &[u32]) -> Result<UpstreamProcess> {
        let program = std::env::current_exe().context("finding this program's own file")?;
        let mut command = Command::new(program);
        command.args(["upstream", "--control", "--listen", &listen.to_string()]);
        if !cpus.is_empty() {
            let cpus: Vec<String> = cpus.iter().map(u32::to_string).collect();
            command.args(["--cpus", &cpus.join(",")]);
        }
        // Its own group: a Ctrl-C is for the coordinator, which still needs it for the drain.
        command.process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().context("starting the upstream")?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("an upstream without pipes");
        };
        let mut lines = BufReader::new(stdout).lines();
        let line = lines.next_line().await?.unwrap_or_default();
        let address = line.rsplit("//").next().and_then(|text| text.parse().ok());
        let Some(address) = address else {
            bail!("the upstream did not start on {listen}");
        };
        Ok(UpstreamProcess { child, stdin, address, cpus: cpus.to_vec() })
    }

    pub async fn command(&mut self, command: upstream::Command) -> Result<()> {
        let line = format!("{}\n", command.word());
        self.stdin.write_all(line.as_bytes()).await.context("commanding the upstream")?;
        self.stdin.flush().await.context("commanding the upstream")
    }

    pub async fn kill(&mut self) -> Result<()> {
        self.child.kill().await.context("killing the upstream")
    }

    /// Starts it again where it was.
    pub async fn restart(&mut self) -> Result<()> {
        *self = UpstreamProcess::start(self.address, &self.cpus.clone()).await?;
        Ok(())
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.child.id().and_then(|pid| Pid::from_raw(pid as i32));
        let pid = pid.context("the upstream has ended")?;
        kill_process(pid, signal).context("signalling the upstream")
    }
}
