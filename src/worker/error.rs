//! Why workers were not started, or ended as they should not have.

use std::fmt;

use crate::io::{ListenError, SetupError};

/// Why nothing was started.
#[derive(Debug)]
pub enum StartError {
    Listen(ListenError),
    Setup(SetupError),
    Thread(std::io::Error),
}

/// How a worker ended that should not have.
#[derive(Debug)]
pub enum WorkerError {
    Panicked { worker: usize },
    Failed { worker: usize, cause: std::io::Error },
}

impl From<ListenError> for StartError {
    fn from(error: ListenError) -> Self {
        StartError::Listen(error)
    }
}

impl From<SetupError> for StartError {
    fn from(error: SetupError) -> Self {
        StartError::Setup(error)
    }
}

impl From<std::io::Error> for StartError {
    fn from(error: std::io::Error) -> Self {
        StartError::Thread(error)
    }
}

impl std::error::Error for StartError {}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Listen(error) => error.fmt(f),
            StartError::Setup(error) => error.fmt(f),
            StartError::Thread(error) => write!(f, "cannot start a worker's thread: {error}"),
        }
    }
}

impl std::error::Error for WorkerError {}

impl fmt::Display for WorkerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WorkerError::Panicked { worker } => write!(f, "worker {worker} panicked"),
            WorkerError::Failed { worker, cause } => {
                write!(f, "worker {worker} stopped: io_uring_enter failed: {cause}")
            }
        }
    }
}
