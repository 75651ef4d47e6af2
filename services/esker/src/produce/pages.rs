//! Records that go to a partition together, as much as fits into a batch.

use std::collections::BTreeMap;

use esker_client::Record;

use crate::tally::Share;

/// Records of one page: each takes some memory beside its bytes.
const PAGE_RECORDS_MAX: usize = 1 << 14;
/// Bytes of all pages that are not full yet. Above, all go as they are.
const OPEN_BYTES_MAX: usize = 8 << 20;

/// Where a record stood.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Place {
    /// In which source.
    pub(super) source: usize,
    /// On which line, the first one being 1.
    pub(super) line: u64,
}

impl Place {
    /// Where the first record stands.
    pub(super) const FIRST: Self = Self { source: 0, line: 1 };
}

/// Records that go together.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) partition: u32,
    pub(super) records: Vec<Record>,
    /// Of the first record.
    pub(super) first: Place,
    /// Of the last record.
    pub(super) last: Place,
    /// The first record read by now that leaves on a later page: pages of keyed records do not
    /// leave in the order of lines.
    pub(super) behind: Option<Place>,
    /// What the partition has got by the end of this page.
    pub(super) after: Share,
    bytes: usize,
}

/// Pages being filled.
#[derive(Debug)]
pub(super) struct Pages {
    partitions: u32,
    /// Plain bytes at which a page is full.
    page_bytes: usize,
    hashing: bool,
    open: BTreeMap<u32, Page>,
    open_bytes: usize,
    /// Closed, to be taken.
    closed: Vec<Page>,
    shares: BTreeMap<u32, Share>,
    /// Where records go that may go anywhere: a page at a time, so that batches are full.
    sticky: u32,
    sticky_bytes: usize,
    /// Of the last page: the next one will have about as many.
    records: usize,
}

impl Pages {
    /// None yet; `first` is where records go first that may go anywhere.
    pub(super) fn new(partitions: u32, first: u32, page_bytes: usize, hashing: bool) -> Self {
        Self {
            partitions,
            page_bytes,
            hashing,
            open: BTreeMap::new(),
            open_bytes: 0,
            closed: Vec::new(),
            shares: BTreeMap::new(),
            sticky: first % partitions,
            sticky_bytes: 0,
            records: 0,
        }
    }

    /// Takes a record of so many plain bytes.
    pub(super) fn add(
        &mut self,
        partition: Option<u32>,
        record: Record,
        bytes: usize,
        place: Place,
    ) {
        let partition = partition.unwrap_or_else(|| self.anywhere(bytes));
        let full = |page: &Page| {
            page.bytes + bytes > self.page_bytes || page.records.len() == PAGE_RECORDS_MAX
        };
        if self.open.get(&partition).is_some_and(full) {
            self.close(partition);
        }
        let hashing = self.hashing;
        let new = || Share::new(hashing);
        let share = self.shares.entry(partition).or_insert_with(new);
        share.add(record.value.as_deref().unwrap_or_default());
        // Where many are open they fill slowly.
        let records = self.records / (1 + self.open.len());
        let page = self.open.entry(partition).or_insert_with(|| Page {
            partition,
            records: Vec::with_capacity(records),
            first: place,
            last: place,
            behind: None,
            after: Share::default(),
            bytes: 0,
        });
        page.records.push(record);
        page.last = place;
        page.bytes += bytes;
        self.open_bytes += bytes;
        if self.open_bytes > OPEN_BYTES_MAX {
            self.close_all();
        }
    }

    fn anywhere(&mut self, bytes: usize) -> u32 {
        if self.sticky_bytes > 0 && self.sticky_bytes + bytes > self.page_bytes {
            self.close(self.sticky);
            self.sticky = (self.sticky + 1) % self.partitions;
            self.sticky_bytes = 0;
        }
        self.sticky_bytes += bytes;
        self.sticky
    }

    fn close(&mut self, partition: u32) {
        if let Some(mut page) = self.open.remove(&partition) {
            self.open_bytes -= page.bytes;
            self.records = page.records.len() + page.records.len() / 8;
            page.after = self.shares[&partition].clone();
            page.behind = self.open.values().map(|page| page.first).min();
            self.closed.push(page);
        }
    }

    /// Closes what is open: nothing may come for long.
    pub(super) fn close_all(&mut self) {
        while let Some((&partition, _)) = self.open.first_key_value() {
            self.close(partition);
        }
    }

    /// Closed pages, oldest first.
    pub(super) fn closed(&mut self) -> std::vec::Drain<'_, Page> {
        self.closed.drain(..)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Partition, first line and values of each page.
    fn shapes(pages: &mut Pages) -> Vec<(u32, u64, usize)> {
        let pages = pages.closed();
        pages
            .map(|page| (page.partition, page.first.line, page.records.len()))
            .collect()
    }

    fn add(pages: &mut Pages, partition: Option<u32>, line: u64) {
        let record = Record::value(vec![b'x'; 10]);
        let place = Place { source: 0, line };
        pages.add(partition, record, 10, place);
    }

    #[test]
    fn a_page_at_a_time_goes_anywhere() {
        let mut pages = Pages::new(2, 1, 25, false);
        for line in 1..=5 {
            add(&mut pages, None, line);
        }
        assert_eq!(shapes(&mut pages), [(1, 1, 2), (0, 3, 2)]);
        pages.close_all();
        assert_eq!(shapes(&mut pages), [(1, 5, 1)]);
        // The batch that it went into has room left.
        add(&mut pages, None, 6);
        add(&mut pages, None, 7);
        assert_eq!(shapes(&mut pages), [(1, 6, 1)]);
    }

    #[test]
    fn a_page_of_each_partition_is_open() {
        let mut pages = Pages::new(2, 0, 25, false);
        for line in 1..=6 {
            add(&mut pages, Some(u32::try_from(line % 2).unwrap()), line);
        }
        assert_eq!(shapes(&mut pages), [(1, 1, 2), (0, 2, 2)]);
        pages.close_all();
        assert_eq!(shapes(&mut pages), [(0, 6, 1), (1, 5, 1)]);
    }

    #[test]
    fn a_page_knows_what_was_read_before_its_end_and_leaves_after_it() {
        let mut pages = Pages::new(3, 0, 25, false);
        add(&mut pages, Some(0), 1);
        for line in 2..=4 {
            add(&mut pages, Some(1), line);
        }
        add(&mut pages, Some(2), 5);
        pages.close_all();
        let pages: Vec<_> = pages.closed().collect();
        let lines = |page: &Page| (page.first.line, page.last.line);
        let behind = |page: &Page| page.behind.map(|place| place.line);
        let told: Vec<_> = pages
            .iter()
            .map(|page| (lines(page), behind(page)))
            .collect();
        let expected = [
            ((2, 3), Some(1)),
            ((1, 1), Some(4)),
            ((4, 4), Some(5)),
            ((5, 5), None),
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn a_page_is_bounded_in_records_and_all_of_them_in_bytes() {
        let mut pages = Pages::new(1, 0, usize::MAX, false);
        let place = Place { source: 0, line: 1 };
        for _ in 0..=PAGE_RECORDS_MAX {
            pages.add(None, Record::default(), 1, place);
        }
        assert_eq!(shapes(&mut pages), [(0, 1, PAGE_RECORDS_MAX)]);
        pages.add(None, Record::default(), OPEN_BYTES_MAX, place);
        assert_eq!(shapes(&mut pages), [(0, 1, 2)]);
    }

    #[test]
    fn a_page_knows_what_its_partition_has_got_by_its_end() {
        let mut pages = Pages::new(1, 0, 25, true);
        for line in 1..=5 {
            add(&mut pages, None, line);
        }
        pages.close_all();
        let records: Vec<_> = pages.closed().map(|page| page.after.records).collect();
        assert_eq!(records, [2, 4, 5]);
    }
}
