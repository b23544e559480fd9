"use strict";
// The live page. The server sends the whole page of campaigns whenever it changes; this draws it. Texts go in as text, never
// as HTML: a campaign's name is whatever somebody typed.
(() => {
  const $ = (id) => document.getElementById(id);
  const number = new Intl.NumberFormat("en-US");
  const states = {
    draft: ["Draft", "gray"], configured: ["Configured", "gray"], cost_calculated: ["Priced", "gray"], ready: ["Ready", "blue"],
    scheduled: ["Scheduled", "blue"], preparing: ["Preparing", "green"], sending: ["Sending", "green"], paused: ["Paused", "amber"],
    suspended: ["Suspended", "red"], completed: ["Completed", "gray"], cancelled: ["Cancelled", "struck"], aborted: ["Aborted", "struck"],
    rejected: ["Rejected", "red"], failed: ["Failed", "red"],
  };
  const types = { sms: "SMS", rcs: "RCS", whatsapp: "WhatsApp", voice: "Voice" };
  const query = { search: "", status: "", type: "", page: 0 };
  const samples = new Map(); // campaign -> [time, sent] of the last seconds
  const rates = new Map();
  let rows = new Map(); // campaign -> its row and cells
  let stream, last;

  const node = (tag, className, text) => {
    const el = document.createElement(tag);
    if (className) el.className = className;
    if (text !== undefined) el.textContent = text;
    return el;
  };
  const put = (el, text) => { if (el.textContent !== text) el.textContent = text; };

  // Times are shown in UTC and say so.
  const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", timeZone: "UTC" });
  const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", timeZone: "UTC" });
  const utc = (iso) => { const t = new Date(iso); return `${day.format(t)}, ${clock.format(t)} UTC`; };
  const clockSeconds = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit", timeZone: "UTC" });

  const left = (iso) => {
    const s = Math.max(0, Math.round((new Date(iso) - Date.now()) / 1000));
    if (s < 60) return `${s}s left`;
    if (s < 3600) return `${Math.floor(s / 60)}m${s % 60}s left`;
    if (s < 86400) return `${Math.floor(s / 3600)}h${Math.floor(s % 3600 / 60)}m left`;
    return `${Math.floor(s / 86400)}d${Math.floor(s % 86400 / 3600)}h left`;
  };
  // Rounded down: 100% is everybody, not nearly everybody.
  const percent = (part, whole) => whole ? Math.floor(part / whole * 100) : 0;

  // What was sent in the last five seconds, as this page saw it.
  const rateOf = (id, sent) => {
    const now = performance.now();
    const seen = samples.get(id) || [];
    seen.push([now, sent]);
    while (seen.length > 2 && seen[1][0] < now - 5000) seen.shift();
    samples.set(id, seen);
    const [t, n] = seen[0];
    return now - t < 400 ? 0 : Math.max(0, Math.round((sent - n) / (now - t) * 1000));
  };

  const build = (r) => {
    const tr = node("tr");
    const cell = (className) => { const td = node("td", className); tr.append(td); return td; };
    const c = { tr };
    const name = cell();
    c.name = node("div", "name"); c.created = node("div", "under");
    name.append(c.name, c.created);
    c.badge = node("span", "badge"); cell().append(c.badge);
    const state = cell();
    c.state = node("span", "state"); c.stateText = node("span"); c.state.append(c.stateText);
    c.why = node("span", "why", "Why?"); state.append(c.state, c.why);
    const list = cell("x");
    c.list = node("div", "one"); c.sender = node("div", "under"); list.append(c.list, c.sender);
    const progress = cell("p");
    c.bar = node("div", "bar"); c.bar.setAttribute("role", "progressbar"); c.bar.setAttribute("aria-valuemin", "0");
    c.parts = ["delivered", "awaiting", "failed"].map((p) => { const i = node("i", p); c.bar.append(i); return i; });
    const figures = node("div", "figures");
    c.counts = node("span"); c.sent = node("b"); c.of = node("span"); c.counts.append(c.sent, c.of);
    c.share = node("span"); figures.append(c.counts, c.share);
    progress.append(c.bar, figures);
    c.rate = cell("num x"); c.cost = cell("num x"); c.scheduled = cell("x under"); c.actions = cell("a");
    return c;
  };

  const draw = (c, r, currency) => {
    put(c.name, r.name);
    c.name.title = r.id;
    const created = utc(r.created) + "\u0000" + r.tags.join("\u0000");
    if (c.createdKey !== created) {
      c.createdKey = created;
      c.created.replaceChildren(utc(r.created), ...r.tags.slice(0, 3).map((t) => node("span", "tag", t)));
    }
    c.badge.dataset.type = r.type; put(c.badge, types[r.type] || r.type);
    const [word, tone] = states[r.state] || [r.state, "gray"];
    c.state.dataset.tone = tone; put(c.stateText, word);
    c.why.hidden = !r.reason; c.why.title = r.reason; put(c.why, r.state === "suspended" ? "Why?" : r.reason);
    c.state.title = r.state === "completed" && !r.settled ? "Receipts are still awaited" : "";
    put(c.list, r.list || "–"); put(c.sender, r.sender);
    const n = r.counts, share = percent(n.sent, r.target);
    c.bar.setAttribute("aria-valuemax", r.target); c.bar.setAttribute("aria-valuenow", n.sent);
    c.bar.setAttribute("aria-label", `${number.format(n.sent)} of ${number.format(r.target)} sent`);
    c.bar.title = `pending ${number.format(n.pending)} · ambiguous ${number.format(n.ambiguous)} · not sent ${number.format(n.notSent)} · skipped ${number.format(n.skipped)}\n` +
      `sent ${number.format(n.sent)} = delivered ${number.format(n.delivered)} + undelivered ${number.format(n.undelivered)} + awaiting ${number.format(n.awaiting)}`;
    [n.delivered, n.awaiting, n.undelivered].forEach((part, i) => { c.parts[i].style.width = (n.total ? part / n.total * 100 : 0) + "%"; });
    put(c.sent, number.format(n.sent)); put(c.of, r.target ? ` of ${number.format(r.target)}` : "");
    const sends = r.state === "sending" || r.state === "preparing";
    const due = sends && n.pending > 0 && r.finish && new Date(r.finish) > Date.now();
    const other = [[n.notSent, "not sent"], [n.skipped, "skipped"], [n.ambiguous, "ambiguous"]].filter(([m]) => m > 0).map(([m, what]) => `${number.format(m)} ${what}`);
    put(c.share, (r.target ? `${share}%` : "") + (due ? ` · ${left(r.finish)}` : !n.pending && other.length ? ` · ${other.join(", ")}` : ""));
    const rate = sends ? rateOf(r.id, n.sent) : 0;
    rates.set(r.id, rate);
    put(c.rate, sends ? `${number.format(rate)}/s` : "–"); c.rate.classList.toggle("none", !sends);
    put(c.cost, (currency === "EUR" ? "€" : currency + " ") + r.cost);
    put(c.scheduled, r.scheduled ? utc(r.scheduled) : "–");
    const actions = r.actions.join(" ");
    if (c.actionsKey !== actions) {
      c.actionsKey = actions;
      c.actions.replaceChildren(...r.actions.map((a) => {
        const b = node("button", "", a[0].toUpperCase() + a.slice(1));
        b.type = "button"; b.setAttribute("aria-label", `${b.textContent} ${r.name}`);
        b.addEventListener("click", () => act(b, r.id, a));
        return b;
      }));
    }
  };

  // The last two minutes, a point a second, of all campaigns on the page.
  const points = [];
  const sample = () => {
    const t = last.totals;
    points.push({ at: Date.now(), sent: t.sent, delivered: t.delivered, failed: t.undelivered + t.notSent });
    while (points.length > 122) points.shift();
    chart();
  };
  const svg = (tag, attributes, text) => {
    const el = document.createElementNS($("chart").namespaceURI, tag);
    for (const [k, v] of Object.entries(attributes)) el.setAttribute(k, v);
    if (text !== undefined) el.textContent = text;
    return el;
  };
  const chart = () => {
    const el = $("chart"), width = el.clientWidth, height = 124, from = 44, floor = height - 20;
    if (!width || points.length < 2) return;
    const now = points[points.length - 1].at, seconds = Math.min(120, Math.max(30, (now - points[0].at) / 1000)), step = seconds > 60 ? 30000 : 10000;
    const kinds = ["sent", "delivered", "failed"];
    const lines = kinds.map((kind) => points.slice(1).map((p, i) => {
      const before = points[Math.max(0, i - 2)]; // over three seconds: the server's batches are no news
      return [p.at, Math.max(0, (p[kind] - before[kind]) / (p.at - before.at) * 1000)];
    }));
    const most = Math.max(10, ...lines.flat().map(([, v]) => v));
    const unit = 10 ** Math.floor(Math.log10(most)), top = Math.ceil(most / unit / 2) * 2 * unit; // its half is as round
    const x = (at) => from + (width - from) * (1 - (now - at) / 1000 / seconds), y = (v) => floor - (floor - 6) * v / top;
    const out = [];
    for (const v of [0, top / 2, top]) {
      out.push(svg("line", { x1: from, x2: width, y1: y(v), y2: y(v) }));
      out.push(svg("text", { x: from - 8, y: y(v) + 4, "text-anchor": "end" }, v >= 1000 ? `${v / 1000}k` : String(v)));
    }
    for (let at = Math.ceil((now - seconds * 1000) / step) * step; at <= now; at += step) {
      if (x(at) > from + 30 && x(at) < width - 40) out.push(svg("text", { x: x(at), y: height - 3, "text-anchor": "middle" }, clockSeconds.format(at)));
    }
    lines.forEach((line, i) => {
      const d = line.filter(([at]) => x(at) >= from).map(([at, v], j) => `${j ? "L" : "M"}${x(at).toFixed(1)} ${y(v).toFixed(1)}`).join("");
      if (!d) return;
      if (!i) out.push(svg("path", { class: "area", d: `${d}L${width} ${floor}L${d.slice(1).split(" ")[0]} ${floor}Z` }));
      out.push(svg("path", { class: kinds[i], d }));
    });
    el.replaceChildren(...out);
    el.setAttribute("aria-label", kinds.map((kind, i) => `${kind} ${Math.round(lines[i][lines[i].length - 1][1])} a second`).join(", "));
  };

  const show = (g) => {
    last = g;
    put($("tenant"), g.tenant); put($("timezone"), g.timezone); put($("avatar"), g.tenant.slice(0, 2).toUpperCase());
    put($("nav-count"), number.format(g.total));
    const next = new Map();
    rates.clear();
    for (const r of g.rows) {
      const c = rows.get(r.id) || build(r);
      draw(c, r, g.currency);
      next.set(r.id, c);
    }
    rows = next;
    const order = [...next.values()].map((c) => c.tr), body = $("rows");
    if (order.length !== body.children.length || order.some((tr, i) => body.children[i] !== tr)) body.replaceChildren(...order);
    const t = g.totals, failed = t.undelivered + t.notSent;
    put($("k-rate"), number.format([...rates.values()].reduce((a, b) => a + b, 0)));
    put($("k-active"), `${g.active} active campaign${g.active === 1 ? "" : "s"}`);
    put($("k-delivered"), number.format(t.delivered)); put($("k-sent"), `of ${number.format(t.sent)} sent`);
    put($("k-deliveryrate"), t.sent ? (t.delivered / t.sent * 100).toFixed(1) + "%" : "–");
    put($("k-failed"), number.format(failed));
    put($("k-failure"), `${number.format(t.undelivered)} undelivered, ${number.format(t.notSent)} not sent`);
    put($("asof"), g.asOf ? `As of ${clockSeconds.format(new Date(g.asOf))} UTC` : "");
    const filtered = query.search || query.status || query.type;
    $("clear").hidden = !filtered;
    $("empty").hidden = g.rows.length > 0;
    put($("empty"), filtered ? "No campaign matches." : "No campaigns yet. POST /api/campaigns makes one.");
    put($("count"), `${number.format(g.total)} campaign${g.total === 1 ? "" : "s"}`);
    $("previous").disabled = g.page === 0; $("next").disabled = (g.page + 1) * 20 >= g.total;
  };

  const state = (on, text) => {
    const el = $("live");
    el.toggleAttribute("data-on", on); el.toggleAttribute("data-off", !on);
    put(el.lastElementChild, text);
  };

  const connect = () => {
    if (stream) stream.close();
    samples.clear();
    points.length = 0;
    stream = new EventSource("/ui/live?" + new URLSearchParams(query));
    stream.addEventListener("grid", (e) => { state(true, "Live"); show(JSON.parse(e.data)); });
    stream.addEventListener("trouble", (e) => state(false, JSON.parse(e.data)));
    stream.addEventListener("error", () => {
      state(false, "Reconnecting");
      if (stream.readyState === EventSource.CLOSED) fetch("/ui/grid").then((r) => { if (r.status === 401) location.reload(); else setTimeout(connect, 2000); }, () => setTimeout(connect, 2000));
    });
  };

  const toast = (text) => {
    put($("toast"), text); $("toast").hidden = false;
    clearTimeout(toast.timer); toast.timer = setTimeout(() => { $("toast").hidden = true; }, 6000);
  };

  const act = async (button, id, action) => {
    button.disabled = true;
    try {
      const r = await fetch(`/ui/campaigns/${encodeURIComponent(id)}/${action}`, { method: "POST" });
      if (!r.ok) toast(await r.text());
    } catch { toast("The server does not answer."); }
    button.disabled = false;
  };

  let typing;
  const filter = () => {
    query.search = $("search").value.trim(); query.status = $("status").value; query.type = $("type").value; query.page = 0;
    connect();
  };
  $("filter").addEventListener("submit", (e) => { e.preventDefault(); filter(); });
  $("search").addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(filter, 250); });
  $("status").addEventListener("change", filter);
  $("type").addEventListener("change", filter);
  $("clear").addEventListener("click", () => { $("filter").reset(); filter(); });
  $("previous").addEventListener("click", () => { query.page = Math.max(0, query.page - 1); connect(); });
  $("next").addEventListener("click", () => { query.page++; connect(); });
  document.addEventListener("keydown", (e) => {
    if (e.key === "/" && !/INPUT|SELECT|TEXTAREA/.test(e.target.tagName)) { e.preventDefault(); $("search").focus(); }
  });
  const theme = (t) => { if (t) document.documentElement.dataset.theme = t; };
  theme(localStorage.getItem("theme"));
  $("theme").addEventListener("click", () => {
    const dark = document.documentElement.dataset.theme ? document.documentElement.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    theme(dark ? "light" : "dark"); localStorage.setItem("theme", document.documentElement.dataset.theme);
  });
  setInterval(() => { if (last) { show(last); sample(); } }, 1000); // rates fall and time runs while nothing changes
  connect();
})();
