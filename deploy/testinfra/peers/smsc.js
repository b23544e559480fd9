// smsc.js: a message centre made of the npm module `smpp`, for the tests of our client. One argument, JSON:
//   {"port":0, "mode":"plain|before|throttle|chaos", "dlr":true, "rate":1000, "key":"…", "cert":"…", "truth":"file", "seed":1}
// It prints "listening PORT". Each line on its standard input is answered with its counters as JSON; at the end of the input it ends.
//   plain     answers, then sends the receipt            before   sends the receipt before the answer
//   throttle  answers ESME_RTHROTTLED beyond rate/s      chaos    3 % no receipt, 3 % two, and now and then it resets the connection
//                                                                 with answers not yet written
// With truth it writes a line "id<TAB>number" for each message that it takes, before the answer.
'use strict';
const fs = require('fs');
const path = require('path');
const home = process.env.FANFARE_PEERS_DIR || path.join(process.env.TMPDIR || '/var/tmp', 'fanfare-peers');
const smpp = require(path.join(home, 'node_modules', 'smpp'));

const opts = Object.assign({port: 0, mode: 'plain', dlr: true, rate: 1000, seed: 1}, JSON.parse(process.argv[2] || '{}'));
const stats = {sessions: 0, submits: 0, accepted: 0, throttled: 0, receipts: 0, taken: 0, refused: 0, resets: 0};
const truth = opts.truth ? fs.openSync(opts.truth, 'a') : null;

// mulberry32: a small generator with a seed.
let state = opts.seed >>> 0;
function random() {
	state = (state + 0x6d2b79f5) >>> 0;
	let t = state;
	t = Math.imul(t ^ (t >>> 15), t | 1);
	t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
	return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
}

let tokens = opts.rate * 2, last = Date.now(), ids = Date.now() * 1000;
function token() {
	const now = Date.now();
	tokens = Math.min(opts.rate * 2, tokens + (now - last) / 1000 * opts.rate);
	last = now;
	if (tokens < 1) return false;
	tokens--;
	return true;
}

function receipt(session, pdu, id) {
	stats.receipts++;
	const ok = session.deliver_sm({
		source_addr: pdu.destination_addr, source_addr_ton: 1, source_addr_npi: 1, destination_addr: pdu.source_addr, esm_class: 4,
		short_message: 'id:' + id + ' sub:001 dlvrd:001 submit date:2611221000 done date:2611221001 stat:DELIVRD err:000 text:',
	}, (resp) => { if (resp.command_status === 0) stats.taken++; else stats.refused++; });
	if (!ok) stats.receipts--; // the session has gone
}

function submit(session, pdu) {
	stats.submits++;
	if (opts.mode === 'throttle' && !token()) {
		stats.throttled++;
		session.send(pdu.response({command_status: smpp.ESME_RTHROTTLED}));
		return;
	}
	const id = String(++ids);
	stats.accepted++;
	if (truth) fs.writeSync(truth, id + '\t' + pdu.destination_addr + '\n');
	if (opts.mode === 'chaos' && random() < 0.002) {
		// Taken, and never answered: nor are those whose answers lie in our buffers.
		stats.resets++;
		session.socket.resetAndDestroy ? session.socket.resetAndDestroy() : session.socket.destroy();
		return;
	}
	const send = opts.dlr && (pdu.registered_delivery & 3) !== 0;
	if (send && opts.mode === 'before') receipt(session, pdu, id);
	session.send(pdu.response({message_id: id}));
	if (!send || opts.mode === 'before') return;
	if (opts.mode === 'chaos') {
		const x = random();
		if (x < 0.03) return;
		if (x < 0.06) receipt(session, pdu, id);
	}
	receipt(session, pdu, id);
}

const server = smpp.createServer({key: opts.key, cert: opts.cert}, (session) => {
	stats.sessions++;
	session.on('error', () => {});
	for (const bind of ['bind_transceiver', 'bind_transmitter', 'bind_receiver']) {
		session.on(bind, (pdu) => session.send(pdu.response({command_status: pdu.password === 'wrong' ? smpp.ESME_RINVPASWD : 0, system_id: 'npm'})));
	}
	session.on('submit_sm', (pdu) => submit(session, pdu));
	session.on('enquire_link', (pdu) => session.send(pdu.response()));
	session.on('unbind', (pdu) => { session.send(pdu.response()); session.close(); });
});
server.listen(opts.port, '127.0.0.1', () => console.log('listening ' + server.address().port));
require('readline').createInterface({input: process.stdin}).on('line', () => console.log(JSON.stringify(stats))).on('close', () => process.exit(0));
