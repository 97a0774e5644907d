//! A graph of statements that agree or disagree: its clusters, and the cut that takes a cluster apart most cheaply.
//!
//! Nodes are numbered from 0. Agreement has a weight, so that a similarity can be one; a cluster is a set of nodes that paths of
//! agreement connect. The minimal cut is that of Stoer and Wagner ("A simple min-cut algorithm", 1997).
//!
//! **Invariant:** results depend on the edges alone, not on the order in which they were added.

use std::collections::BTreeMap;

/// Most nodes of a cluster whose minimal cut is computed; the time grows with their cube.
const MAX_CUT_NODES: usize = 256;

/// Statements and the edges between them.
///
/// ```
/// use behavior_eval::labels::EvidenceGraph;
/// let mut graph = EvidenceGraph::new(4);
/// graph.agree(0, 1, 1.0);
/// graph.disagree(1, 2);
/// assert_eq!(graph.clusters(), [0, 0, 2, 3]);
/// assert!(graph.is_contested(0) && graph.is_contested(2) && !graph.is_contested(3));
/// ```
#[derive(Clone, Debug, Default)]
pub struct EvidenceGraph {
    n_nodes: usize,
    agreements: BTreeMap<(usize, usize), f64>,
    disagreements: Vec<(usize, usize)>,
}

/// The cheapest way to take a cluster apart.
#[derive(Clone, Debug, PartialEq)]
pub struct Cut {
    /// Sum of the agreements that it takes.
    pub weight: f64,
    /// The nodes on the side that does not have the cluster's first node.
    pub far_side: Vec<usize>,
}

impl EvidenceGraph {
    /// A graph of `n_nodes` statements without edges.
    pub fn new(n_nodes: usize) -> Self {
        Self { n_nodes, ..Self::default() }
    }

    /// Says that `a` and `b` agree with this weight; the weights of repeated calls are added. Nodes that do not exist, equal
    /// nodes and weights that are not positive are ignored.
    pub fn agree(&mut self, a: usize, b: usize, weight: f64) {
        if self.is_edge(a, b) && weight > 0.0 {
            *self.agreements.entry((a.min(b), a.max(b))).or_default() += weight;
        }
    }

    /// Says that `a` and `b` disagree.
    pub fn disagree(&mut self, a: usize, b: usize) {
        let edge = (a.min(b), a.max(b));
        if self.is_edge(a, b) && !self.disagreements.contains(&edge) {
            self.disagreements.push(edge);
        }
    }

    fn is_edge(&self, a: usize, b: usize) -> bool {
        a != b && a < self.n_nodes && b < self.n_nodes
    }

    /// The cluster of each node, named by its first member.
    pub fn clusters(&self) -> Vec<usize> {
        let mut group: Vec<usize> = (0..self.n_nodes).collect();
        for &(a, b) in self.agreements.keys() {
            let (low, high) = (group[a].min(group[b]), group[a].max(group[b]));
            if low != high {
                group.iter_mut().filter(|member| **member == high).for_each(|member| *member = low);
            }
        }
        group
    }

    /// Whether a node's cluster disagrees with another one, or with itself.
    pub fn is_contested(&self, node: usize) -> bool {
        let clusters = self.clusters();
        let Some(&own) = clusters.get(node) else { return false };
        self.disagreements.iter().any(|&(a, b)| clusters[a] == own || clusters[b] == own)
    }

    /// The nodes that disagree with `node` directly.
    pub fn opponents(&self, node: usize) -> Vec<usize> {
        let other = |&(a, b): &(usize, usize)| match (a == node, b == node) {
            (true, _) => Some(b),
            (_, true) => Some(a),
            _ => None,
        };
        let mut found: Vec<usize> = self.disagreements.iter().filter_map(other).collect();
        found.sort_unstable();
        found
    }

    /// The minimal cut of the cluster of `node`; `None` for a cluster of one node, or of more than 256.
    pub fn minimal_cut(&self, node: usize) -> Option<Cut> {
        let clusters = self.clusters();
        let own = *clusters.get(node)?;
        let members: Vec<usize> = (0..self.n_nodes).filter(|&n| clusters[n] == own).collect();
        if !(2..=MAX_CUT_NODES).contains(&members.len()) {
            return None;
        }
        let weight = |a: usize, b: usize| {
            let edge = (members[a].min(members[b]), members[a].max(members[b]));
            self.agreements.get(&edge).copied().unwrap_or(0.0)
        };
        let n = members.len();
        let weights: Vec<Vec<f64>> =
            (0..n).map(|a| (0..n).map(|b| if a == b { 0.0 } else { weight(a, b) }).collect()).collect();
        let (weight, side) = stoer_wagner(weights);
        let has_first = side.contains(&0);
        let far = (0..n).filter(|member| side.contains(member) != has_first);
        Some(Cut { weight, far_side: far.map(|member| members[member]).collect() })
    }
}

/// Weight and one side of a minimal cut of a connected graph with at least two nodes, given as a symmetric matrix.
fn stoer_wagner(mut weights: Vec<Vec<f64>>) -> (f64, Vec<usize>) {
    let n = weights.len();
    // The original nodes that each node stands for.
    let mut merged: Vec<Vec<usize>> = (0..n).map(|node| vec![node]).collect();
    let mut left: Vec<usize> = (0..n).collect();
    let mut best = (f64::INFINITY, Vec::new());
    while left.len() > 1 {
        // Take nodes in the order of their weight to all that were taken: the last one's weight is a cut.
        let mut order = Vec::with_capacity(left.len());
        let mut reach: Vec<f64> = vec![0.0; n];
        let mut waiting = left.clone();
        while let Some(at) = heaviest(&waiting, &reach) {
            let node = waiting.remove(at);
            order.push(node);
            for &other in &waiting {
                reach[other] += weights[node][other];
            }
        }
        let (Some(&last), Some(&before)) = (order.last(), order.iter().rev().nth(1)) else { break };
        if reach[last] < best.0 {
            best = (reach[last], merged[last].clone());
        }
        let absorbed = std::mem::take(&mut merged[last]);
        merged[before].extend(absorbed);
        for &other in left.iter().filter(|&&other| other != before && other != last) {
            weights[before][other] += weights[last][other];
            weights[other][before] = weights[before][other];
        }
        left.retain(|&node| node != last);
    }
    best
}

/// Place of the waiting node with the most weight, the first of equals.
fn heaviest(waiting: &[usize], reach: &[f64]) -> Option<usize> {
    (0..waiting.len()).reduce(|best, at| if reach[waiting[at]] > reach[waiting[best]] { at } else { best })
}

#[cfg(test)]
mod tests {
    use super::EvidenceGraph;

    /// The example of Stoer and Wagner's paper, figure 1: its minimal cut has weight 4 and separates {3, 4, 7, 8}.
    #[test]
    fn the_cut_of_the_published_example() {
        let edges = [
            (1, 2, 2.0),
            (1, 5, 3.0),
            (2, 3, 3.0),
            (2, 5, 2.0),
            (2, 6, 2.0),
            (3, 4, 4.0),
            (3, 7, 2.0),
            (4, 7, 2.0),
            (4, 8, 2.0),
            (5, 6, 3.0),
            (6, 7, 1.0),
            (7, 8, 3.0),
        ];
        let mut graph = EvidenceGraph::new(8);
        for (a, b, weight) in edges {
            graph.agree(a - 1, b - 1, weight);
        }
        let cut = graph.minimal_cut(0).unwrap();
        assert_eq!((cut.weight, cut.far_side), (4.0, vec![2, 3, 6, 7]));
    }

    #[test]
    fn clusters_do_not_depend_on_the_order_of_edges() {
        let edges = [(0, 3), (3, 5), (1, 2), (2, 4)];
        for turn in 0..edges.len() {
            let mut edges = edges;
            edges.rotate_left(turn);
            let mut graph = EvidenceGraph::new(7);
            edges.iter().for_each(|&(a, b)| graph.agree(b, a, 0.5));
            assert_eq!(graph.clusters(), [0, 1, 1, 0, 1, 0, 6]);
        }
    }

    #[test]
    fn edges_that_cannot_be_are_ignored() {
        let mut graph = EvidenceGraph::new(2);
        graph.agree(0, 0, 1.0);
        graph.agree(0, 9, 1.0);
        graph.agree(0, 1, -1.0);
        graph.agree(0, 1, f64::NAN);
        graph.disagree(1, 1);
        assert_eq!(graph.clusters(), [0, 1]);
        assert!(!graph.is_contested(1) && !graph.is_contested(9) && graph.minimal_cut(0).is_none());
        graph.disagree(1, 0);
        assert_eq!((graph.opponents(0), graph.opponents(1)), (vec![1], vec![0]));
        assert!(EvidenceGraph::new(0).clusters().is_empty());
    }
}
