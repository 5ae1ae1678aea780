//! placeholder while the core comes up
