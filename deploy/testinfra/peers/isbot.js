// isbot.js: prints one line of JSON, {"bots","people"}: user agents that the npm modules crawler-user-agents and top-user-agents list, of
// programs and of browsers, as far as the npm module isbot agrees.
'use strict';
const path = require('path');
const modules = path.join(process.env.FANFARE_PEERS_DIR || path.join(process.env.TMPDIR || '/var/tmp', 'fanfare-peers'), 'node_modules');
const {isbot} = require(path.join(modules, 'isbot'));
const crawlers = require(path.join(modules, 'crawler-user-agents', 'crawler-user-agents.json'));
const browsers = require(path.join(modules, 'top-user-agents', 'src', 'index.json'));
const bots = crawlers.flatMap((c) => c.instances).filter(isbot);
console.log(JSON.stringify({bots, people: browsers.filter((a) => !isbot(a))}));
