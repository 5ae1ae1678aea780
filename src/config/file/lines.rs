//! A text by its lines, for the places of its bytes.

use crate::config::fault::Place;

pub(in crate::config) struct Lines<'t> {
    text: &'t str,
    starts: Vec<usize>,
}

impl<'t> Lines<'t> {
    pub(in crate::config) fn new(text: &'t str) -> Self {
        Lines {
            text,
            starts: [0].into_iter().chain(text.match_indices('\n').map(|(newline, _)| newline + 1)).collect(),
        }
    }

    pub(in crate::config) fn place(&self, offset: usize) -> Place {
        let offset = offset.min(self.text.len());
        let line = self.starts.partition_point(|start| *start <= offset);
        // Continuation bytes of UTF-8 begin no character.
        let before = &self.text.as_bytes()[self.starts[line - 1]..offset];
        Place::File { line, column: before.iter().filter(|byte| **byte & 0xc0 != 0x80).count() + 1 }
    }
}
