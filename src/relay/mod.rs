//! State: values in, operations out.
#![forbid(unsafe_code)]
