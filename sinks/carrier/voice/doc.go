// Package voice is the connector to telephony by the REST interface of Asterisk (ARI). It calls recipients,
// distinguishes answering machines from people, plays a message, and hands the call to a queue.
//
// # What happens to a hand-over
//
// A message is one call: POST /channels. The id of the channel is the name of the application followed by our
// submission id. Send waits until one of Config.MaxConcurrent places is free.
//
//	expired or withdrawn before the write                retryable, code `deadline`; tested right before the system
//	                                                     call
//	no connection, or another process has the account    retryable, code `not connected`
//	a text, and no text to speech; AMD, and no context   rejected, with a code that says so: `no text to speech`, `no
//	                                                     machine context`, `queue`
//	200                                                  accepted: it rings, or will
//	409: a channel with this id exists                   accepted: it is this call
//	400                                                  rejected
//	401, 403                                             retryable: the account is wrong, not the message
//	500, 503, and GET says that there is no such channel retryable: the trunk did not take it
//	other 5xx, no answer, a broken connection            unknown
//
// # Doubt
//
// Caps say DoubtNone. Asterisk refuses the id of an existing channel, but forgets the id at the end of the call. So if
// the sender repeated an id, Asterisk might make a second call. If GET /channels/{id} finds nothing, that proves
// nothing, because the call may be over. Only an event of the call, or the list of calls, ends the doubt. A receipt
// then says that the call exists (`living`), and a later one how it ended. If nothing shows the call, it stays
// ambiguous.
//
// # How a call goes
//
// When the call is answered, it enters the Stasis application. If machines must be detected, the connector sends it to
// Config.MachineContext of the dialplan, which runs AMD() and returns the call with the result. The connector then
// hangs up on a machine, or plays it the message. After the message, the connector sends the call to
// Config.QueueContext if the message names a queue, and hangs up otherwise. codes.csv has the meaning of each end:
//
//	human            a person answered and heard the message, or hung up during it: ANSWERED
//	voicemail        a machine got the message: VOICEMAIL_LEFT
//	machine          a machine answered, and the connector hung up: not delivered, not tried again
//	abandoned        the other side hung up before AMD() had a result
//	unplayed         Asterisk could not play the message
//	q850:17, …       not answered: the cause of Q.850. Busy, no answer and congestion are worth another try
//	missed           the connector missed the end, see below: the message stays awaiting
//
// # Places and crashes
//
// A call takes up a place until its end: until ChannelDestroyed, or until GET /channels does not list it any more. When
// a connector connects, it first lists the calls and counts those whose id begins with the name of the application. So
// there are never more than MaxConcurrent calls, also after a crash. It then follows these calls: variables of the
// channel say what must happen in the call. A hand-over that may have become a call takes up a place for 5 s, and then
// until a list does not show the call.
//
// Asterisk does not store events. Therefore the connector keeps a call up after its message until the receipt is
// durable (at most Config.Hold), and a variable of the channel says how the call went. If the process is killed before
// the receipt is durable, the next process finds the call, and nothing is lost. If a call ends while no process is
// connected, it is `missed` if this process made it, and gets no receipt if the process that made it is gone. In both
// cases the message stays awaiting, because the connector does not guess. Asterisk hangs up calls that are answered
// during this time. So a restart loses the calls that are answered, or end unanswered, before the next process is
// connected.
//
// # One process
//
// Asterisk sends the events of an application to one connection: the newest. A connector that was replaced makes no
// more calls, answers `not connected`, and takes the application back when the other process is gone, or after 30 s.
// The limit still holds, but only one process makes calls at a time. So let one process serve a route of voice, or make
// several routes, each with its own application and a share of the trunk.
//
// # What Asterisk needs
//
// Version 16 or newer with res_ari, res_stasis_playback and app_amd, and res_http_media_cache to play addresses. In
// ari.conf:
//
//	[general]
//	enabled = yes
//	[fanfare]
//	type = user
//	password = …
//
// In http.conf `enabled = yes` and an address that only Fanfare can reach. In extensions.conf, for AMD and for queues:
//
//	[fanfare-amd]
//	exten => s,1,AMD()
//	 same => n,GotoIf($["${AMDSTATUS}" = "HANGUP"]?out)
//	 same => n,ExecIf($["${AMDSTATUS}${CALL_MACHINE}" = "MACHINEvoicemail"]?WaitForSilence(1500,1,30))
//	 same => n,Stasis(${CALL_APP},amd,${AMDSTATUS},${AMDCAUSE})
//	 same => n(out),Hangup()
//
//	[fanfare-queue]
//	exten => _[A-Za-z0-9]!,1,Queue(${EXTEN})
//	 same => n,Hangup()
//
// WaitForSilence waits for the end of the beep. If neither side hangs up, Asterisk must end the call: set a limit on
// the trunk.
//
// Package ari is the server side, for the simulator and tests. The connector was not tested with a real Asterisk,
// because none could be installed where it was built.
package voice
