// Line charts: each [data-chart] draws the data of the element it names, again whenever that data changes.
(() => {
  const drawn = new Map(); // element → {plot, text, theme, names}
  let loading = null;
  const load = (src) => loading ??= new Promise((done, failed) => {
    const script = document.createElement("script");
    script.src = src;
    script.onload = done;
    script.onerror = () => { loading = null; failed(new Error(src)); };
    document.head.append(script);
  });
  const SECONDS = { hour: "2-digit", minute: "2-digit", second: "2-digit" };
  const MINUTES = { hour: "2-digit", minute: "2-digit" };
  const DAYS = { day: "numeric", month: "short" };
  const colour = (name) => {
    const probe = document.createElement("i");
    probe.style.color = `var(${name})`;
    document.body.append(probe);
    const value = getComputedStyle(probe).color;
    probe.remove();
    return value;
  };
  const options = (el, lines) => {
    const axis = { stroke: colour("--dim"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "11px Inter, sans-serif" };
    return {
      width: el.clientWidth - 32, height: 190, cursor: { y: false }, legend: { show: false },
      scales: { y: { range: (_, low, high) => [0, Math.max(1, high * 1.1)] } },
      axes: [{ ...axis, values: (_, ticks, __, ___, step) => ticks.map((t) => new Date(t * 1000).toLocaleString("en-GB", step < 60 ? SECONDS : step < 86400 ? MINUTES : DAYS)) }, { ...axis, size: 56, values: (_, ticks) => ticks.map((v) => Number.isInteger(v) ? v.toLocaleString("en") : "") }],
      series: [{}, ...lines.map((l) => ({ label: l.label, stroke: colour(l.tone), width: 1.5, points: { show: false } }))],
    };
  };
  const draw = () => {
    for (const [el, was] of drawn) {
      if (!el.isConnected) { was.plot.destroy(); drawn.delete(el); }
    }
    for (const el of document.querySelectorAll("[data-chart]")) {
      const text = document.getElementById(el.dataset.chart)?.dataset.series;
      if (!text) continue;
      if (!window.uPlot) { load(el.dataset.uplot).then(draw, () => {}); return; }
      const theme = getComputedStyle(document.documentElement).colorScheme + document.documentElement.dataset.theme;
      const was = drawn.get(el);
      if (was && was.text === text && was.theme === theme && el.contains(was.plot.root)) continue;
      const { lines, data } = JSON.parse(text);
      const names = lines.map((l) => l.label + l.tone).join();
      if (was && was.theme === theme && was.names === names && el.contains(was.plot.root)) {
        was.plot.setData(data);
        was.text = text;
        continue;
      }
      was?.plot.destroy();
      el.replaceChildren();
      drawn.set(el, { plot: new uPlot(options(el, lines), data, el), text, theme, names });
    }
  };
  let asked = false;
  const soon = () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => { asked = false; draw(); });
  };
  new MutationObserver(soon).observe(document.documentElement, { subtree: true, childList: true, attributes: true, attributeFilter: ["data-series", "data-theme"] });
  addEventListener("resize", () => {
    for (const [el, was] of drawn) was.plot.setSize({ width: el.clientWidth - 32, height: 190 });
  });
  soon();
})();
