// Package text knows what a text costs and how it is made: [Measure] counts the segments of an SMS, [Parse] reads a text with
// `{{field}}` merge fields, and [Template.Append] fills them in for one recipient. Connectors write it to the carrier with
// [Cut], [AppendGSM7], [AppendPacked] and [AppendUCS2], from the same tables that counted it.
//
// The price before a confirm, the check of a campaign, the rendering of each message and the connectors all call these functions, so
// that they cannot disagree. No function allocates per recipient beyond the caller's buffer.
package text
