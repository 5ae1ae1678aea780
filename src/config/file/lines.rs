//! A text by its lines, for the places of its bytes.

use crate::config::diagnostic::Place;

pub(in crate::config) struct Lines<'t> {
    text: &'t str,
    starts: Vec<usize>,
    /// Then each byte is a character, and a file of one long line costs no more than another.
    is_ascii: bool,
}

impl<'t> Lines<'t> {
    pub(in crate::config) fn new(text: &'t str) -> Self {
        Lines {
            text,
            starts: [0].into_iter().chain(text.match_indices('\n').map(|(newline, _)| newline + 1)).collect(),
            is_ascii: text.is_ascii(),
        }
    }

    pub(in crate::config) fn place(&self, offset: usize) -> Place {
        let offset = offset.min(self.text.len());
        let line = self.starts.partition_point(|start| *start <= offset);
        let start = self.starts[line - 1];
        let characters = if self.is_ascii {
            offset - start
        } else {
            // Continuation bytes of UTF-8 begin no character.
            self.text.as_bytes()[start..offset].iter().filter(|byte| **byte & 0xc0 != 0x80).count()
        };
        Place::File { line, column: characters + 1 }
    }
}
