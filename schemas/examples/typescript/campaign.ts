// Sends a campaign with the client that openapi-typescript makes of the OpenAPI document, and waits until it is completed.
//
//   npm ci && npm run generate && npm run build
//   FANFARE_URL=http://127.0.0.1:8080 FANFARE_KEY=… node dist/campaign.js +393331234567 +393331234568
import createClient from "openapi-fetch";
import type { components, paths } from "./fanfare.js";

const phones = process.argv.slice(2);
const { FANFARE_URL: baseUrl, FANFARE_KEY: key } = process.env;
if (!baseUrl || !key || phones.length === 0) {
  console.error("usage: FANFARE_URL=… FANFARE_KEY=… node dist/campaign.js NUMBER…");
  process.exit(2);
}

const fanfare = createClient<paths>({ baseUrl, headers: { "X-Api-Key": key } });

// must returns the body of a success. Every failure is a problem that names the field and the fix.
function must<T>(answer: { data?: T; error?: components["schemas"]["Problem"] }): T {
  if (answer.error) {
    throw new Error(`${answer.error.status} ${answer.error.code}: ${answer.error.detail} ${answer.error.fix}`);
  }
  return answer.data as T;
}

// A request that is repeated with the same key has an effect once.
const run = crypto.randomUUID();
const once = (what: string) => ({ header: { "Idempotency-Key": `${run}-${what}` } });

const list = must(await fanfare.POST("/api/contacts/list", { params: once("list"), body: { name: `Example ${run}` } }));
for (const phone of phones) {
  must(await fanfare.POST("/api/contacts", {
    params: once(phone), body: { phoneNumber: phone, firstName: "Anna", listIds: [list.id] },
  }));
}
const made = must(await fanfare.POST("/api/campaigns", {
  params: once("campaign"),
  body: { name: "From TypeScript", channel: "sms", message: "Ciao {{first_name}}", contactList: list.id, sendImmediately: true },
}));
const path = { id: made.id };
const price = must(await fanfare.GET("/api/campaigns/{id}/price", { params: { path } }));
must(await fanfare.PUT("/api/campaigns/{id}/confirm", { params: { path }, body: { expectedCost: price.estimatedCost } }));
for (;;) {
  const stats = must(await fanfare.GET("/api/campaigns/{id}/stats", { params: { path } }));
  if (stats.state === "completed" && stats.pending === 0) {
    console.log(JSON.stringify({ campaign: made.id, cost: price.estimatedCost, total: stats.totalMessages, sent: stats.sent }));
    break;
  }
  await new Promise((resolve) => setTimeout(resolve, 200));
}
