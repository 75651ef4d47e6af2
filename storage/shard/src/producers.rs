//! The producers of a partition, by id.
//!
//! A leaf of the map has room for sixteen, and most partitions have one: few stand in a list that is as long
//! as they are many.

use std::sync::Arc;

use esker_types::ProducerId;
use imbl::OrdMap;

use crate::producer::Producer;

/// As many as a list holds. What is in a list is copied whole when a view of it is held.
const FEW_MAX: usize = 8;

/// Producers by id. Few if there are at most [`FEW_MAX`], so that two are equal if they hold the same.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Producers(Kept);

#[derive(Clone, PartialEq, Eq, Debug)]
enum Kept {
    /// Ascending.
    Few(Vec<(ProducerId, Arc<Producer>)>),
    Many(OrdMap<ProducerId, Arc<Producer>>),
}

use Kept::{Few, Many};

impl Default for Producers {
    fn default() -> Self {
        Self(Few(Vec::new()))
    }
}

impl Producers {
    pub(crate) fn len(&self) -> usize {
        match &self.0 {
            Few(few) => few.len(),
            Many(many) => many.len(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (ProducerId, &Arc<Producer>)> {
        let (few, many) = match &self.0 {
            Few(few) => (&few[..], None),
            Many(many) => (&[][..], Some(many)),
        };
        let few = few.iter().map(|(id, producer)| (*id, producer));
        let many = many.into_iter().flatten();
        few.chain(many.map(|(id, producer)| (*id, producer)))
    }

    pub(crate) fn last(&self) -> Option<ProducerId> {
        match &self.0 {
            Few(few) => few.last().map(|(id, _)| *id),
            Many(many) => many.get_max().map(|(id, _)| *id),
        }
    }

    pub(crate) fn get(&self, id: ProducerId) -> Option<&Arc<Producer>> {
        match &self.0 {
            Few(few) => find(few, id).ok().map(|at| &few[at].1),
            Many(many) => many.get(&id),
        }
    }

    pub(crate) fn get_mut(&mut self, id: ProducerId) -> Option<&mut Arc<Producer>> {
        match &mut self.0 {
            Few(few) => find(few, id).ok().map(|at| &mut few[at].1),
            Many(many) => many.get_mut(&id),
        }
    }

    /// Puts `producer` in the place of who had the id.
    pub(crate) fn insert(&mut self, id: ProducerId, producer: Arc<Producer>) {
        match &mut self.0 {
            Few(few) => match find(few, id) {
                Ok(at) => few[at].1 = producer,
                Err(at) => {
                    few.reserve_exact(1);
                    few.insert(at, (id, producer));
                }
            },
            Many(many) => _ = many.insert(id, producer),
        }
        if let Few(few) = &mut self.0
            && few.len() > FEW_MAX
        {
            self.0 = Many(few.drain(..).collect());
        }
    }

    pub(crate) fn remove(&mut self, id: ProducerId) {
        match &mut self.0 {
            Few(few) => {
                if let Ok(at) = find(few, id) {
                    few.remove(at);
                    few.shrink_to_fit();
                }
            }
            Many(many) => {
                many.remove(&id);
                if many.len() <= FEW_MAX {
                    self.0 = Few(std::mem::take(many).into_iter().collect());
                }
            }
        }
    }
}

fn find(few: &[(ProducerId, Arc<Producer>)], id: ProducerId) -> Result<usize, usize> {
    few.binary_search_by_key(&id, |(id, _)| *id)
}

impl FromIterator<(ProducerId, Arc<Producer>)> for Producers {
    fn from_iter<T: IntoIterator<Item = (ProducerId, Arc<Producer>)>>(all: T) -> Self {
        let mut producers = Self::default();
        for (id, producer) in all {
            producers.insert(id, producer);
        }
        producers
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use esker_types::{ContentHash, Incarnation, Offset, ProducerEpoch, Sequence, ShardTime};

    use super::*;
    use crate::producer::Mark;

    fn id(number: u64) -> ProducerId {
        ProducerId::new(Incarnation::FIRST, number).unwrap()
    }

    fn producer(records: u32) -> Arc<Producer> {
        let mark = Mark {
            sequence: Sequence::ZERO,
            records,
            start: Offset::ZERO,
            hash: ContentHash(1),
        };
        Arc::new(Producer::new(ProducerEpoch::FIRST, ShardTime(1), mark))
    }

    #[test]
    fn few_and_many_are_found_counted_and_in_order_whichever_way_they_came() {
        // Neither ascending nor descending, every id twice, then gone one after the other.
        let order = |step: u64| (0..40).map(move |at| 1 + (at * step) % 20);
        let (mut kept, mut known) = (Producers::default(), BTreeMap::new());
        let check = |kept: &Producers, known: &BTreeMap<ProducerId, u32>| {
            let all: Vec<_> = kept
                .iter()
                .map(|(id, p)| (id, p.window()[0].records))
                .collect();
            let wanted: Vec<_> = known.iter().map(|(id, records)| (*id, *records)).collect();
            assert_eq!(all, wanted);
            assert_eq!(
                (kept.len(), kept.is_empty()),
                (known.len(), known.is_empty())
            );
            assert_eq!(kept.last(), known.keys().last().copied());
            assert_eq!(matches!(kept.0, Few(_)), known.len() <= FEW_MAX);
            let same: Producers = known.iter().map(|(id, at)| (*id, producer(*at))).collect();
            assert_eq!(*kept, same);
        };
        for (at, number) in (1..).zip(order(7)) {
            kept.insert(id(number), producer(at));
            known.insert(id(number), at);
            *kept.get_mut(id(number)).unwrap() = producer(at);
            check(&kept, &known);
        }
        assert_eq!(kept.len(), 20);
        for number in order(3) {
            kept.remove(id(number));
            known.remove(&id(number));
            assert!(kept.get(id(number)).is_none() && kept.get_mut(id(number)).is_none());
            check(&kept, &known);
        }
        assert!(kept.is_empty());
    }
}
