//! placeholder while the core comes up
use super::{compare::Comparison, result::RunResult};
use anyhow::Result;
use std::path::Path;
pub fn write(_r: &RunResult, _p: &Path) -> Result<()> {
    Ok(())
}
pub fn write_comparison(_c: &Comparison, _r: &[RunResult], _p: &Path) -> Result<()> {
    Ok(())
}
