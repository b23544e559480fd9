// Package relay publishes the control plane: every row that is newer than its published version goes to its topic.
package relay
