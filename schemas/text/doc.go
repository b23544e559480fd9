// Package text measures and renders texts: [Measure] counts the segments of an SMS, [Parse] parses a text with
// `{{field}}` merge fields, and [Template.Append] renders it for one recipient. Connectors encode texts for the carrier
// with [Cut], [AppendGSM7], [AppendPacked] and [AppendUCS2], which use the same tables as Measure.
//
// The price before a confirm, the check of a campaign, the rendering of each message and the connectors all call these
// functions, so that they cannot disagree. No function allocates per recipient beyond the caller's buffer.
package text
