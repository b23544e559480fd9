// kapso.js: npm @kapso/whatsapp-cloud-api as a client of the Graph API and as the judge of its webhooks. Each line on standard input is a
// JSON object, and one line of JSON answers it:
//   {"id","send":{"base","token","from","to","name","language","params","text"}}   sends a template, or the text: {"id","message"} or {"id","code","category"}
//   {"id","template":{"name","language","params"}}                                 {"id","template"}: the template as the module builds it for a request
//   {"id","webhook":{"secret","body","signature"}}                                 {"id","valid","phone","statuses","messages"}
'use strict';
const path = require('path');
const home = process.env.FANFARE_PEERS_DIR || path.join(process.env.TMPDIR || '/var/tmp', 'fanfare-peers');
const dist = path.join(home, 'node_modules', '@kapso', 'whatsapp-cloud-api', 'dist');
const {WhatsAppClient, buildTemplateSendPayload} = require(path.join(dist, 'index.cjs'));
const {verifySignature, normalizeWebhook} = require(path.join(dist, 'server.cjs'));

const template = (q) => buildTemplateSendPayload({name: q.name, language: q.language, body: (q.params || []).map((text) => ({type: 'text', text}))});

async function answer(q) {
	if (q.template) return {template: template(q.template)};
	if (q.webhook) {
		const valid = verifySignature({appSecret: q.webhook.secret, rawBody: q.webhook.body, signatureHeader: q.webhook.signature});
		const {phoneNumberId: phone, statuses, messages} = normalizeWebhook(JSON.parse(q.webhook.body));
		return {valid, phone, statuses, messages};
	}
	const s = q.send;
	const client = new WhatsAppClient({baseUrl: s.base, accessToken: s.token});
	try {
		const sent = s.text
			? await client.messages.sendText({phoneNumberId: s.from, to: s.to, body: s.text})
			: await client.messages.sendTemplate({phoneNumberId: s.from, to: s.to, template: template(s)});
		return {message: sent.messages[0].id};
	} catch (e) {
		return {code: e.code, category: e.category, error: String(e)};
	}
}

console.log('ready');
require('readline').createInterface({input: process.stdin}).on('line', async (line) => {
	const q = JSON.parse(line);
	console.log(JSON.stringify({id: q.id, ...await answer(q)}));
}).on('close', () => process.exit(0));
