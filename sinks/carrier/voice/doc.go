// Package voice is the connector to telephony by the REST interface of Asterisk (ARI): it calls people, tells answering
// machines from people, plays a message, and gives the call to a queue.
//
// # What happens to a hand-over
//
// A message is one call: POST /channels, with our submission id as the id of the channel, behind the name of the
// application. Send waits until one of Config.MaxConcurrent places is free.
//
//	expired or withdrawn before the write                retryable, code `deadline`; tested right before the system
//	                                                     call
//	no connection, or another process has the account    retryable, code `not connected`
//	a text, and no text to speech; AMD, and no context   rejected, with a code that says so: `no text to speech`, `no
//	                                                     machine context`, `queue`
//	200                                                  accepted: it rings, or will
//	409: a channel with this id lives                    accepted: it is this call
//	400                                                  rejected
//	401, 403                                             retryable: the account is wrong, not the message
//	500, 503, and GET says that there is no such channel retryable: the trunk did not take it
//	other 5xx, no answer, a broken connection            unknown
//
// # Doubt
//
// Caps say DoubtNone. Asterisk refuses the id of a channel that lives and forgets it with the end of the call, so a
// repeated id may be a second call; and that GET /channels/{id} finds nothing proves nothing, because the call may be
// over. Only what shows the call ends the doubt: an event, or the list of calls, after which a receipt says that it
// lives (`living`), and later how it ended. A call of which nothing shows stays ambiguous.
//
// # How a call goes
//
// The call enters the Stasis application when it is answered. With AMD it is given to Config.MachineContext of the
// dialplan, which runs AMD() and comes back with what it found; then a machine is hung up, or gets the message. After
// the message the call goes to Config.QueueContext, when the message names a queue, and is hung up otherwise. What the
// ends mean is codes.csv:
//
//	human            a person answered and heard the message, or hung up within it: ANSWERED
//	voicemail        a machine got the message: VOICEMAIL_LEFT
//	machine          a machine answered and was hung up: not delivered, not tried again
//	abandoned        who answered hung up before AMD() knew who it was
//	unplayed         Asterisk could not play the message
//	q850:17, …       not answered: the cause of Q.850. Busy, no answer and congestion are worth another try
//	missed           the end was not heard, see below: the message stays awaiting
//
// # Places and crashes
//
// A call holds its place until its end: ChannelDestroyed, or GET /channels lists it no longer. A connector that
// connects lists the calls first and counts those whose id begins with the name of the application, so that there are
// never more than MaxConcurrent after a crash either. It follows these calls: what is to happen in a call goes with it,
// as variables of the channel. A hand-over that may have become a call holds a place for 5 s, and then until a list
// does not show it.
//
// Asterisk keeps no event. Therefore a call whose message is over is kept up until its receipt is durable (at most
// Config.Hold), and the channel has a variable that says how it went: a process that is killed before the receipt is
// durable loses nothing, the next one finds the call. A call that ends while no process listens is `missed` when this
// process made it, and has no receipt when the process that made it is gone; both leave the message awaiting, and
// neither is a guess. Asterisk hangs up a call that is answered in that time. So a restart costs the calls that are
// answered, or end unanswered, until the next process listens.
//
// # One process
//
// An application's events go to one connection: the newest. The connector that is replaced makes no more calls, answers
// `not connected`, and takes the application back when the other is gone, or after 30 s. The limit holds all the same,
// but calls are made by one process at a time: let one process serve a route of voice at a time, or give each of
// several routes an application and a share of the trunk.
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
// In http.conf `enabled = yes` and an address that only Fanfare reaches. In extensions.conf, for AMD and for queues:
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
// WaitForSilence waits for the beep's end. When neither side hangs up, Asterisk must end the call: set a limit on the
// trunk.
//
// Package ari is the other end, for the simulator and tests. It was not tried on an Asterisk: none can be installed
// where this was built.
package voice
