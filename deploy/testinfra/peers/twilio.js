// twilio.js: signatures of callbacks as the npm module `twilio` makes and checks them. Each line on its standard input is a JSON object
// {"token","url","params","body","signature"}; for each it prints {"expected","valid"}: the signature it makes of url and params, and
// whether it takes the one that was given (with body, which the URL has the hash of, instead of params).
'use strict';
const path = require('path');
const home = process.env.FANFARE_PEERS_DIR || path.join(process.env.TMPDIR || '/var/tmp', 'fanfare-peers');
const webhooks = require(path.join(home, 'node_modules', 'twilio', 'lib', 'webhooks', 'webhooks.js'));
console.log('ready');
require('readline').createInterface({input: process.stdin}).on('line', (line) => {
	const q = JSON.parse(line);
	const valid = q.body === undefined ? webhooks.validateRequest(q.token, q.signature || '', q.url, q.params || {}) : webhooks.validateRequestWithBody(q.token, q.signature || '', q.url, q.body);
	console.log('{' + JSON.stringify({expected: webhooks.getExpectedTwilioSignature(q.token, q.url, q.params || {}), valid}).slice(1));
}).on('close', () => process.exit(0));
