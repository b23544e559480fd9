// Package text knows what a text costs and how it is made: [Measure] counts the segments of an SMS, [Parse] reads a text with
// `{{field}}` merge fields, and [Template.Append] fills them in for one recipient.
//
// It is the one place for both: the price before a confirm, the check of a campaign and the rendering of each message call the
// same functions, so that they cannot disagree. Nothing here allocates per recipient beyond the buffer that it is given.
package text
