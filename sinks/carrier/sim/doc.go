// Package sim is a carrier that exists only here: it takes messages, answers as carriers answer, on good days and on bad
// ones, and sends the receipts that carriers send. It comes as a connector within the process ([Carrier.Connector]) and as
// a server ([NewHandler]) that many processes share through the connector that [Dial] returns.
//
// Everything it does to a submission follows from the seed, the [Profile] and the submission id, not from the order in which
// submissions come in: two runs with the same seed give a submission the same fate. Numbers of the block +39 399 000 00NN
// override the profile; see [Magic].
//
// # Ground truth
//
// With Config.Truth it appends one line of JSON per submission that it saw, written with one write per batch before any answer
// of that batch, so that no message is ever called accepted that the file does not have:
//
//	{"time":"2026-11-22T10:00:00.123Z","message_id":"msg_…","submission_id":"sub_…","to":"+39…","body":"…","outcome":"accepted",
//	 "account":"sim","ref":"…","receipts":[{"status":"delivered","code":"DELIVERED","time":"…"}]}
//
// outcome is one of accepted, refused, throttled, busy, unsupported, dropped (lost before it was taken) and duplicate (only with
// Profile.Idempotent). "answer":"none" marks what was never answered. receipts are all that it owes, when each is said to have
// happened, and, as "due", when it is sent if that is later. What was acknowledged goes to a second file beside it, named with
// .acked in place of .ndjson. A restart reads both and sends what is still owed. After a kill the last line may be torn; it was never answered,
// and is cut off when the file is opened again. [ReadTruth] reads the file for tests and for the demonstration.
//
// Numbers and texts are in that file in clear: it is a simulator's, and nothing else may write such a file.
//
// # Limits
//
// Receipts that are owed are kept in memory, about 60 bytes each, up to Config.MaxOwed; beyond, submissions are throttled as by a
// carrier whose queue is full. The file outlives a kill of the process, not a loss of power.
package sim
