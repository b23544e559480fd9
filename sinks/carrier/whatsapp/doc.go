// Package whatsapp is the connector to WhatsApp's Cloud API: template messages, and free texts to recipients who have
// written within the last 24 hours.
//
// # What happens to a hand-over
//
// A message is one request. WhatsApp has no idempotency and no query for a message. So a hand-over in doubt stays in
// doubt until a webhook comes, which carries our submission id (biz_opaque_callback_data).
//
//	expired or withdrawn before the write       retryable, code `deadline`; tested right before the system call
//	no connection                               retryable, code `not connected`
//	an id of the message                        accepted; rejected when message_status says that the template is
//	                                            paused
//	an error with a code                        what codes.csv says of the code, and how long to wait
//	  throughput (130429, 80007, 4)             throttled: the route slows down
//	  one recipient too often (131056)          retryable after 6 s; the others go on at their rate
//	  not on WhatsApp (131026)                  unsupported: the next channel of the chain is tried at once
//	  template missing, paused, not matching    rejected, and the next channel is tried where the campaign has one
//	  the account: token, payment, policy       retryable: nothing is wrong with the message. The breaker of the route
//	                                            opens
//	an error of 4xx with an unknown code            rejected
//	5xx, no answer, a broken connection         unknown, unless codes.csv says that WhatsApp takes nothing then
//
// # Webhooks
//
// Register https://YOUR-HOST/api/callback/ROUTE in the app, with the route's verifyToken, for the field `messages`. The
// connector verifies each webhook by X-Hub-Signature-256 over the unchanged body. Statuses come in batches and in any
// order; `read` may come without `delivered`. A status without our submission id belongs to another program. With the
// field `message_template_status_update` Meta sends its decisions about templates, by business account, name and
// language ([Connector.Templates]).
//
// Package graph is the server side, for the simulator and tests.
package whatsapp
