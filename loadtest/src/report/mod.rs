//! What people and scripts see: the progress, the table, `result.json`, the HTML page, the comparison.

pub mod compare;
pub mod html;
pub mod plots;
pub mod progress;
pub mod result;
pub mod table;
