// Package sim is a simulated carrier: it takes messages, answers as carriers answer, on good days and on bad ones, and
// sends the receipts that carriers send. It comes as a connector within the process ([Carrier.Connector]) and as a
// server ([NewHandler]) that many processes share through the connector that [Dial] returns.
//
// Everything it does to a submission follows from the seed, the [Profile] and the submission id, not from the order in
// which submissions come in: two runs with the same seed give a submission the same fate. A submission that was lost or
// refused for a passing reason gets new random numbers when it comes again. Numbers of the block +39 399 000 00NN
// override the profile; see [Magic].
//
// # Ground truth
//
// With Config.Truth it appends one line of JSON per submission that it saw, written with one write per batch before any
// answer of that batch. So the file has every message that an answer calls accepted:
//
//	{"time":"2026-11-22T10:00:00.123Z","message_id":"msg_…","submission_id":"sub_…","to":"+39…","body":"…",
//	 "outcome":"accepted","account":"sim","ref":"…","receipts":[{"status":"delivered","code":"DELIVERED","time":"…"}]}
//
// outcome is one of accepted, refused, throttled, busy, unsupported, dropped (lost before it was taken) and duplicate
// (only with profiles that ignore a key they have had). "answer":"none" marks what was never answered. receipts lists
// all receipts that the carrier owes: "time" is when the event happened, and "due" is when the receipt is sent if that
// is later. The ids of acknowledged receipts go to a second file beside it, named with .acked in place of .ndjson. A
// restart reads both files and sends the receipts that are still owed. After a kill the last line may be torn. That
// submission was never answered, and opening the file cuts the line off. [ReadTruth] reads the file for tests and for
// the demonstration.
//
// The file has numbers and texts in clear, because it is a simulator's. No other part of Fanfare may write such a file.
//
// # Phones
//
// [Handsets] are the phones behind the carrier. They read its record and, by [Habits], open the links of messages that
// were delivered, as people and as programs do, and send the form of opt-out pages. A file beside the truth, named by
// HandsetsConfig.Record, has a line for each thing that a phone has done: with the truth it says what clicks,
// click-through rate and opt-outs have to be.
//
// # Limits
//
// The carrier keeps the receipts that it owes in memory, about 60 bytes each, up to Config.MaxOwed. Beyond that it
// throttles submissions, as a carrier whose queue is full does. The file outlives a kill of the process, not a loss of
// power.
package sim
