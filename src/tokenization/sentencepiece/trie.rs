//! A trie over the pieces of a vocabulary, which finds every piece that starts at a position of a text.

/// Means "no piece ends here". Vocabularies are limited to fewer pieces.
const NONE: u32 = u32::MAX;

/// Nodes in breadth-first order, so the children of a node are contiguous.
pub(super) struct Trie {
    nodes: Vec<Node>,
    /// The byte that leads to each node; the root's is unused.
    labels: Vec<u8>,
}

#[derive(Clone, Copy)]
struct Node {
    first_child: u32,
    children: u16,
    /// The value of the piece that ends here.
    value: u32,
}

impl Trie {
    /// Builds the trie from pieces with their values. Of equal pieces, the first counts; empty ones are never found.
    pub(super) fn new<'a>(pieces: impl Iterator<Item = (&'a str, u32)>) -> Trie {
        let mut pieces: Vec<(&[u8], u32)> = pieces.map(|(piece, value)| (piece.as_bytes(), value)).collect();
        pieces.sort_by_key(|(piece, _)| *piece);
        pieces.dedup_by_key(|(piece, _)| *piece);
        let mut trie = Trie { nodes: vec![Node { first_child: 0, children: 0, value: NONE }], labels: vec![0] };
        // For each node, the range of pieces below it, which share their first `depth` bytes.
        let mut level = vec![(0, pieces.len())];
        let mut depth = 0;
        while !level.is_empty() {
            let first = trie.nodes.len() - level.len();
            let mut next_level = Vec::new();
            for (i, (mut start, end)) in level.into_iter().enumerate() {
                if start < end && pieces[start].0.len() == depth {
                    trie.nodes[first + i].value = if depth == 0 { NONE } else { pieces[start].1 };
                    start += 1;
                }
                trie.nodes[first + i].first_child = trie.nodes.len() as u32;
                while start < end {
                    let label = pieces[start].0[depth];
                    let same = pieces[start..end].partition_point(|(piece, _)| piece[depth] == label);
                    next_level.push((start, start + same));
                    trie.nodes.push(Node { first_child: 0, children: 0, value: NONE });
                    trie.nodes[first + i].children += 1;
                    trie.labels.push(label);
                    start += same;
                }
            }
            level = next_level;
            depth += 1;
        }
        trie
    }

    /// The pieces at the start of `text`, shortest first: each with its length in bytes and its value.
    pub(super) fn prefixes<'a>(&'a self, text: &'a [u8]) -> impl Iterator<Item = (usize, u32)> + 'a {
        let mut node = self.nodes[0];
        text.iter()
            .map_while(move |&byte| {
                let first = node.first_child as usize;
                let labels = &self.labels[first..first + node.children as usize];
                node = self.nodes[first + labels.binary_search(&byte).ok()?];
                Some(node.value)
            })
            .enumerate()
            .filter(|(_, value)| *value != NONE)
            .map(|(i, value)| (i + 1, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_every_piece_at_the_start_of_a_text() {
        let pieces = ["b", "abc", "a", "ab", "é", "", "ab", "abcdef"];
        let trie = Trie::new(pieces.into_iter().zip(0..));
        let found = |text: &str| trie.prefixes(text.as_bytes()).collect::<Vec<_>>();
        assert_eq!(found("abcde"), [(1, 2), (2, 3), (3, 1)]);
        assert_eq!(found("abcdef"), [(1, 2), (2, 3), (3, 1), (6, 7)]);
        assert_eq!(found("été"), [(2, 4)]);
        assert_eq!(found("cab"), []);
        assert_eq!(found(""), []);
        assert_eq!(Trie::new(std::iter::empty()).prefixes(b"a").count(), 0);
    }
}
