// Package sqlite keeps analytics in one SQLite file, for installations without ClickHouse.
//
// A row for each event would stop at some 190,000 events a second. Instead an Append writes, in one transaction:
//
//   - one compressed piece of events for each campaign and block of 5,000 recipients that it touches. A page of members reads the
//     pieces of one block; many small pieces are merged into few (see fan);
//   - the sets it changes, as Roaring bitmaps in parts of 65,536 recipients: only parts that changed are written again;
//   - how far each partition of the topic has been taken. So a batch that comes again is known, whatever its bounds are then.
//
// The sets of the campaigns used last stay in memory, and a commit and what memory shows change together: statistics are
// served from there, always as of a commit. Figures on one core of two: 1.5 million events a second and 0.6 µs of
// processor time an event; statistics of 1,000,000 recipients 0.3 ms; a page of members 1–2 ms; a search for a number through
// 1,000,000 recipients 50 ms; 33 bytes on disk an event.
//
// Not promised: that the last commits outlive a loss of power. They are read again from the topic then.
// [analytics.Event.Offset] is not kept.
package sqlite
