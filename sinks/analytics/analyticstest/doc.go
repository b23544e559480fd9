// Package analyticstest is the suite that every [analytics.Store] passes: random histories of many campaigns and tenants,
// shuffled, with events doubled and batches appended again, compared figure by figure with a model that is a plain list of events.
package analyticstest
