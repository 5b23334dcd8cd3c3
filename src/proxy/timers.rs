//! Deadlines, one list per kind.
//!
//! Every kind of deadline has one fixed length, so a list in order of arming is in order of expiry: arming appends,
//! cancelling unlinks, the head is the next to expire. All in constant time, without a heap and without an allocation
//! once an index has been seen. An index has at most one deadline at a time.
//!
//! The lists run through one array of nodes, by index, as the connections do. Their order is of use elsewhere too: the
//! head of a list of idle connections is the longest idle, its tail the one used last.
//!
//! Not here: the clock, and what a deadline means.

use std::time::{Duration, Instant};

const NONE: u32 = u32::MAX;

/// `K` lists of deadlines.
#[derive(Debug)]
pub(crate) struct Timers<const K: usize> {
    lists: [List; K],
    nodes: Vec<Node>,
}

#[derive(Debug, Clone, Copy)]
struct List {
    after: Duration,
    head: u32,
    tail: u32,
}

#[derive(Debug, Clone, Copy)]
struct Node {
    due: Instant,
    before: u32,
    behind: u32,
    /// The list it is in; `K` when it is in none.
    list: u8,
}

impl<const K: usize> Timers<K> {
    /// Empty lists whose deadlines come so long after their arming.
    pub(crate) fn new(after: [Duration; K]) -> Self {
        Self { lists: after.map(|after| List { after, head: NONE, tail: NONE }), nodes: Vec::new() }
    }

    /// Sets the deadline of `index`, in place of the one it had.
    pub(crate) fn arm(&mut self, index: usize, list: usize, now: Instant) {
        self.cancel(index);
        if self.nodes.len() <= index {
            self.nodes.resize(index + 1, Node { due: now, before: NONE, behind: NONE, list: number(K) });
        }
        let id = link(index);
        let end = &mut self.lists[list];
        let tail = std::mem::replace(&mut end.tail, id);
        let due = now + end.after;
        if tail == NONE {
            end.head = id;
        } else {
            self.nodes[tail as usize].behind = id;
        }
        self.nodes[index] = Node { due, before: tail, behind: NONE, list: number(list) };
    }

    /// Takes the deadline of `index` away, if it has one.
    pub(crate) fn cancel(&mut self, index: usize) {
        let Some(list) = self.armed(index) else { return };
        let Node { before, behind, .. } = self.nodes[index];
        match before {
            NONE => self.lists[list].head = behind,
            before => self.nodes[before as usize].behind = behind,
        }
        match behind {
            NONE => self.lists[list].tail = before,
            behind => self.nodes[behind as usize].before = before,
        }
        self.nodes[index].list = number(K);
    }

    /// The list that `index` is in.
    pub(crate) fn armed(&self, index: usize) -> Option<usize> {
        self.nodes.get(index).map(|node| usize::from(node.list)).filter(|list| *list < K)
    }

    /// The index that has been longest in `list`.
    pub(crate) fn oldest(&self, list: usize) -> Option<usize> {
        index(self.lists[list].head)
    }

    /// The indices that have been longest in `list`, so many at most.
    pub(crate) fn first_in(&self, list: usize, most: usize) -> impl Iterator<Item = usize> {
        std::iter::successors(self.oldest(list), |last| index(self.nodes[*last].behind)).take(most)
    }

    /// The index that came last into `list`.
    pub(crate) fn newest(&self, list: usize) -> Option<usize> {
        index(self.lists[list].tail)
    }

    /// When `index`'s deadline was armed.
    pub(crate) fn armed_at(&self, index: usize) -> Option<Instant> {
        let list = self.armed(index)?;
        self.nodes[index].due.checked_sub(self.lists[list].after)
    }

    /// The earliest deadline of all.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.lists.iter().filter_map(|list| index(list.head)).map(|head| self.nodes[head].due).min()
    }

    /// Takes out one deadline that has passed: its index and its list.
    pub(crate) fn expire(&mut self, now: Instant) -> Option<(usize, usize)> {
        let list = (0..K).find(|list| index(self.lists[*list].head).is_some_and(|head| self.nodes[head].due <= now))?;
        let index = self.oldest(list)?;
        self.cancel(index);
        Some((index, list))
    }
}

fn index(link: u32) -> Option<usize> {
    (link != NONE).then_some(link as usize)
}

/// Indices are slots of connections, which the descriptor limit keeps far below `u32::MAX`.
#[expect(clippy::cast_possible_truncation, reason = "a process has no 2^32 descriptors")]
fn link(index: usize) -> u32 {
    index as u32
}

#[expect(clippy::cast_possible_truncation, reason = "there are a handful of lists")]
const fn number(list: usize) -> u8 {
    list as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: usize = 0;
    const LONG: usize = 1;

    fn timers() -> (Timers<2>, Instant) {
        (Timers::new([Duration::from_secs(1), Duration::from_secs(10)]), Instant::now())
    }

    fn expired(timers: &mut Timers<2>, now: Instant) -> Vec<(usize, usize)> {
        std::iter::from_fn(|| timers.expire(now)).collect()
    }

    #[test]
    fn deadlines_expire_in_order_of_arming() {
        let (mut timers, start) = timers();
        for index in [4, 2, 9] {
            timers.arm(index, SHORT, start);
        }
        assert_eq!(timers.next_due(), Some(start + Duration::from_secs(1)));
        assert_eq!(expired(&mut timers, start), []);
        assert_eq!(expired(&mut timers, start + Duration::from_secs(1)), [(4, SHORT), (2, SHORT), (9, SHORT)]);
        assert_eq!(timers.next_due(), None);
    }

    #[test]
    fn arming_again_moves_to_the_end_and_to_another_list() {
        let (mut timers, start) = timers();
        let later = start + Duration::from_millis(500);
        timers.arm(0, SHORT, start);
        timers.arm(1, SHORT, start);
        timers.arm(0, SHORT, later);
        assert_eq!((timers.oldest(SHORT), timers.newest(SHORT)), (Some(1), Some(0)));
        timers.arm(1, LONG, later);
        assert_eq!((timers.armed(1), timers.armed_at(1)), (Some(LONG), Some(later)));
        assert_eq!(expired(&mut timers, start + Duration::from_secs(5)), [(0, SHORT)]);
    }

    #[test]
    fn cancelling_keeps_the_rest_linked() {
        for gone in 0..3 {
            let (mut timers, start) = timers();
            (0..3).for_each(|index| timers.arm(index, SHORT, start));
            timers.cancel(gone);
            timers.cancel(gone);
            timers.cancel(77);
            let left: Vec<usize> =
                expired(&mut timers, start + Duration::from_secs(1)).into_iter().map(|pair| pair.0).collect();
            assert_eq!(left, (0..3).filter(|index| *index != gone).collect::<Vec<_>>());
        }
    }
}
