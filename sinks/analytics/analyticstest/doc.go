// Package analyticstest is the conformance suite of [analytics.Store]. It appends random histories of several campaigns
// and tenants, shuffled, with duplicate events and repeated batches, and compares every answer with a [Model], which is
// a plain list of events.
package analyticstest
