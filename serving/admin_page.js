// The admin page: reads /metrics every two seconds and shows what it says. Rates and percentiles are of the time between two readings.
"use strict";
(function () {
  const PERIOD_MS = 2000, WINDOW_MS = 30000, KEPT = 150;
  const COLOURS = ["#2563a8", "#c2410c", "#15803d", "#7c3aed", "#0e7490", "#be185d", "#854d0e", "#475569"];
  const GRID = "#e5e9ee";
  const history = []; // readings, oldest first: {at, series}

  // --- Prometheus' text: {name: [{labels, value}]} ---
  function parse(text) {
    const series = {};
    for (const line of text.split("\n")) {
      const match = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$/.exec(line);
      if (!match) continue;
      const labels = {};
      for (const label of (match[2] || "").matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g))
        labels[label[1]] = label[2].replace(/\\(.)/g, (all, char) => (char === "n" ? "\n" : char));
      const value = match[3] === "+Inf" ? Infinity : Number(match[3]);
      (series[match[1]] = series[match[1]] || []).push({ labels, value });
    }
    return series;
  }
  const all = (series, name) => series[name] || [];
  const has = (labels, wanted) => Object.keys(wanted).every((key) => labels[key] === wanted[key]);
  const sum = (series, name, wanted = {}) => all(series, name).filter((s) => has(s.labels, wanted)).reduce((total, s) => total + s.value, 0);

  // A histogram's buckets, not cumulative: [{bound, count}]; those of equal bound are added up.
  function buckets(series, name, wanted = {}) {
    const counts = new Map();
    for (const s of all(series, name + "_bucket")) {
      if (!has(s.labels, wanted)) continue;
      const bound = s.labels.le === "+Inf" ? Infinity : Number(s.labels.le);
      counts.set(bound, (counts.get(bound) || 0) + s.value);
    }
    const sorted = [...counts.keys()].sort((a, b) => a - b);
    return sorted.map((bound, i) => ({ bound, count: counts.get(bound) - (i ? counts.get(sorted[i - 1]) : 0) }));
  }
  // As Prometheus' histogram_quantile; null where there is nothing.
  function quantile(list, share) {
    const total = list.reduce((n, b) => n + b.count, 0);
    if (!(total > 0)) return null;
    let rank = share * total, low = 0;
    for (const b of list) {
      if (b.count >= rank && b.count > 0) return b.bound === Infinity ? low : low + (b.bound - low) * (rank / b.count);
      rank -= b.count;
      low = b.bound;
    }
    return low;
  }
  // What came since `before`; everything where a counter has begun anew.
  function since(now, before) {
    const difference = now.map((b, i) => ({ bound: b.bound, count: b.count - (before && before[i] ? before[i].count : 0) }));
    return difference.some((b) => b.count < 0) ? now : difference;
  }

  // --- the page's parts ---
  const show = (id, text) => { document.getElementById(id).textContent = text; };
  const number = (value, digits = 3) =>
    value === null || !isFinite(value) ? "–" : Math.abs(value) >= 1000 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(digits)));
  const bytes = (value) => (value >= 2 ** 30 ? number(value / 2 ** 30) + " GiB" : value >= 2 ** 20 ? number(value / 2 ** 20) + " MiB" : number(value / 1024) + " KiB");
  const milliseconds = (seconds) => (seconds === null ? "–" : number(seconds * 1e3));
  function duration(seconds) {
    if (seconds < 120) return number(seconds, 2) + " s";
    if (seconds < 7200) return Math.round(seconds / 60) + " min";
    return seconds < 172800 ? Math.round(seconds / 3600) + " h" : Math.round(seconds / 86400) + " days";
  }
  // A number, or the text of one: with a unit, or "–" for none.
  const isFigure = (value) => typeof value === "number" || /^(–|[\d.,]+( \S+)?)$/.test(value);
  // rows: arrays of texts and numbers; the first is the head. The first column names the row.
  function table(id, rows) {
    const element = document.getElementById(id);
    element.replaceChildren();
    rows.forEach((row, r) => {
      const line = (r ? element.tBodies[0] || element.createTBody() : element.createTHead()).insertRow();
      row.forEach((value, c) => {
        const cell = r ? line.insertCell() : line.appendChild(document.createElement("th"));
        const sample = r ? value : (rows[1] || [])[c];
        cell.textContent = typeof value === "number" ? value.toLocaleString("en") : value;
        if (c && sample !== undefined && isFigure(sample)) cell.className = "number";
      });
    });
  }

  const axis = (title) => ({ title: { display: true, text: title }, grid: { color: GRID }, beginAtZero: true });
  function lines(id, labels, title) {
    return new Chart(document.getElementById(id), {
      type: "line",
      data: { labels: [], datasets: labels.map((label, i) => ({ label, data: [], borderColor: COLOURS[i], backgroundColor: COLOURS[i],
                                                                borderWidth: 2, pointRadius: 2, spanGaps: false })) },
      options: { animation: false, maintainAspectRatio: false, plugins: { legend: { display: labels.length > 1 } },
                 scales: { x: { title: { display: true, text: "seconds ago" }, grid: { color: GRID } }, y: axis(title) } },
    });
  }
  const rateChart = lines("rate-chart", ["answered", "not answered"], "a second");
  const latencyChart = lines("latency-chart", ["p50", "p95", "p99"], "ms");
  const scoresChart = new Chart(document.getElementById("scores-chart"), {
    type: "bar",
    data: { labels: [], datasets: [] },
    options: { animation: false, maintainAspectRatio: false,
               scales: { x: { title: { display: true, text: "score, up to" }, grid: { display: false } }, y: axis("% of candidates") } },
  });

  const calibrationChart = new Chart(document.getElementById("calibration-chart"), {
    type: "line",
    data: { datasets: [] },
    options: { animation: false, maintainAspectRatio: false,
               scales: { x: { ...axis("mean score of what was shown"), type: "linear" }, y: axis("click rate") } },
  });

  const answered = (series) => sum(series, "clicktower_requests_total", { code: "OK" });
  const unanswered = (series) => sum(series, "clicktower_requests_total") - answered(series);

  // Rates and percentiles of each reading, from the one before it and from the one half a minute before it.
  function point(i) {
    const now = history[i], before = history[i - 1];
    const start = history.find((reading) => now.at - reading.at <= WINDOW_MS);
    const latency = (reading) => buckets(reading.series, "clicktower_request_duration_seconds");
    const recent = start === now ? latency(now) : since(latency(now), latency(start));
    const seconds = before ? (now.at - before.at) / 1e3 : null;
    const rate = (figure) => (before && seconds > 0 ? Math.max(0, figure(now.series) - figure(before.series)) / seconds : null);
    return { answered: rate(answered), unanswered: rate(unanswered), candidates: rate((s) => sum(s, "clicktower_candidates_total")),
             p50: quantile(recent, 0.5), p95: quantile(recent, 0.95), p99: quantile(recent, 0.99) };
  }

  function drawModels(series) {
    const rows = [["model", "architecture", "schema", "precision", "instructions", "trained on, rows", "age", "version"]];
    for (const { labels } of all(series, "clicktower_model_info")) {
      const own = { model: labels.model };
      const loading = sum(series, "clicktower_model_loading", own) ? " (loading)" : "";
      rows.push([labels.model + loading, labels.architecture, labels.schema, labels.precision, labels.instruction_set,
                 sum(series, "clicktower_model_trained_rows", own), duration(sum(series, "clicktower_model_age_seconds", own)), labels.version]);
    }
    table("models", rows);
  }

  // The experiment that runs: how many requests saw each arm, and how they came to it.
  function drawExperiment(series) {
    const infos = all(series, "clicktower_experiment_arm_info"), requests = "clicktower_experiment_requests_total";
    const ways = ["bucket", "ramp", "holdout", "forced", "outside", "fallback", "none"];
    const drawn = sum(series, requests, { assigned: "bucket" });
    const rows = [["arm", "model", "weight", "share of drawn", ...ways.map((way) => (way === "bucket" ? "drawn" : way)), "failed"]];
    for (const { labels } of infos) {
      const own = { experiment: labels.experiment, arm: labels.arm }, count = sum(series, requests, { ...own, assigned: "bucket" });
      rows.push([labels.arm + (labels.control === "true" ? " (control)" : ""),
                 labels.model + (labels.served === "true" ? "" : " (not there: the control stands in)"), sum(series, "clicktower_experiment_arm_weight", own),
                 drawn ? number((100 * count) / drawn) + " %" : "–", ...ways.map((way) => sum(series, requests, { ...own, assigned: way })),
                 sum(series, "clicktower_experiment_failures_total", own)]);
    }
    if (infos.length) table("arms", rows);
    show("experiment-note", infos.length ? infos[0].labels.experiment + " · ramp " + number(sum(series, "clicktower_experiment_ramp_percent")) +
         " % · hold-out " + number(sum(series, "clicktower_experiment_holdout_percent")) + " %" : "No experiment runs.");
    const has = (name) => all(series, name).length > 0, count = (name, wanted) => sum(series, name, wanted).toLocaleString("en");
    show("exposures-note", !has("clicktower_exposures_written_total") ? "Requests are not logged." :
         "Logged requests: " + count("clicktower_exposures_written_total") + " written, " + count("clicktower_exposures_dropped_total") + " dropped.");
    const events = "clicktower_feedback_events_total";
    show("feedback-note", !has(events) ? "No feedback is taken." :
         "Feedback: " + ["shown", "click", "other"].map((event) => count(events, { event }) + " " + event).join(", ") + "; " +
         count("clicktower_feedback_refused_total") + " requests refused.");
  }

  function drawStages(series) {
    const rows = [["stage", "count", "mean, ms", "p50, ms", "p99, ms"]];
    for (const [name, metric] of [["waiting", "queue"], ["message to batch", "decode"], ["look-ups and network", "compute"], ["a block's look-up", "look_up"],
                                  ["a block's network", "forward"], ["answer", "answer"], ["request", "request"]]) {
      const metricName = "clicktower_" + metric + "_duration_seconds", list = buckets(series, metricName);
      const count = sum(series, metricName + "_count");
      rows.push([name, count, milliseconds(count ? sum(series, metricName + "_sum") / count : null), milliseconds(quantile(list, 0.5)),
                 milliseconds(quantile(list, 0.99))]);
    }
    table("stages", rows);
  }

  function drawCodes(series) {
    const counts = all(series, "clicktower_requests_total").filter((s) => s.value > 0 || s.labels.code === "OK");
    const rows = [["code", "requests"], ...counts.map((s) => [s.labels.code, s.value])];
    for (const s of all(series, "clicktower_requests_refused_total")) rows.push(["refused: " + s.labels.reason, s.value]);
    for (const s of all(series, "clicktower_calls_refused_total")) if (s.value > 0) rows.push(["refused: " + s.labels.reason, s.value]);
    for (const s of all(series, "clicktower_model_swaps_total")) if (s.value > 0 || s.labels.result !== "not_yet") rows.push(["model swaps: " + s.labels.result, s.value]);
    table("codes", rows);
  }

  function drawTables(series) {
    const rows = [["table", "rows", "memory", "look-ups", "unknown"]];
    for (const { labels, value } of all(series, "clicktower_table_rows")) {
      const lookups = sum(series, "clicktower_table_lookups_total", labels), unknown = sum(series, "clicktower_table_unknown_total", labels);
      rows.push([labels.model + ": " + labels.table, value, bytes(sum(series, "clicktower_table_bytes", labels)), lookups,
                 lookups ? number((100 * unknown) / lookups) + " %" : "–"]);
    }
    table("tables", rows);
  }

  function drawScores(series) {
    const models = all(series, "clicktower_model_info").map((s) => s.labels.model);
    const datasets = [], means = [];
    models.forEach((model, i) => {
      const list = buckets(series, "clicktower_scores", { model }), total = list.reduce((n, b) => n + b.count, 0);
      scoresChart.data.labels = list.map((b) => (b.bound === Infinity ? "1" : String(b.bound)));
      if (!total) return;
      datasets.push({ label: model, backgroundColor: COLOURS[i % COLOURS.length], data: list.map((b) => (100 * b.count) / total) });
      means.push(model + ": mean " + number(sum(series, "clicktower_scores_sum", { model }) / total, 4) + " of " + total.toLocaleString("en"));
    });
    scoresChart.data.datasets = datasets;
    scoresChart.update();
    show("scores-note", "Since the models were loaded. " + (means.join("; ") || "There are none yet."));
  }

  // Of what was shown: how many clicks the scores expected, and how many came. A point is a bucket of the score.
  function drawCalibration(series) {
    const names = ["shown", "clicks", "predicted"].map((what) => "clicktower_calibration_" + what + "_total");
    const rows = [["model", "arm", "shown", "clicks", "click rate", "mean score", "clicks to those expected"]], datasets = [];
    const pairs = new Map(all(series, names[0]).map(({ labels }) => [labels.model + "\n" + labels.arm, { model: labels.model, arm: labels.arm }]));
    let most = 0;
    for (const own of pairs.values()) {
      const [shown, clicks, predicted] = names.map((name) => sum(series, name, own));
      if (!shown) continue;
      rows.push([own.model, own.arm, shown, clicks, number(clicks / shown, 4), number(predicted / shown, 4), predicted ? number(clicks / predicted) : "–"]);
      const points = [];
      for (const { labels, value } of all(series, names[0])) {
        if (!has(labels, own) || !value) continue;
        const [click, score] = [names[1], names[2]].map((name) => sum(series, name, labels) / value);
        points.push({ x: score, y: click, shown: value });
        most = Math.max(most, score, click);
      }
      const colour = COLOURS[datasets.length % COLOURS.length];
      datasets.push({ label: own.model + (own.arm ? ", " + own.arm : ""), data: points, borderColor: colour, backgroundColor: colour, pointRadius: 4 });
    }
    datasets.push({ label: "as expected", data: [{ x: 0, y: 0 }, { x: most, y: most }], borderColor: "#8a94a3", borderDash: [6, 4], pointRadius: 0 });
    table("calibration", rows.length > 1 ? rows : [["model", "arm", "shown", "clicks"]]);
    calibrationChart.data.datasets = datasets;
    calibrationChart.update();
    const events = "clicktower_calibration_events_total", count = (result) => sum(series, events, { result }).toLocaleString("en");
    show("calibration-note", !all(series, events).length ? "The server needs --exposures and --feedback to see what came of its scores." :
         "Since the start, of the logged requests that are still kept: " + sum(series, "clicktower_calibration_requests").toLocaleString("en") + " in " +
         bytes(sum(series, "clicktower_calibration_bytes")) + ". Events: " + count("counted") + " counted, " + count("repeated") + " repeated, " +
         count("unknown") + " of requests that are not kept. Clicks may still come; clicktower report has the whole.");
  }

  function drawCharts(points, now) {
    const ago = history.map((reading) => Math.round((reading.at - now) / 1e3));
    rateChart.data.labels = latencyChart.data.labels = ago;
    ["answered", "unanswered"].forEach((name, i) => { rateChart.data.datasets[i].data = points.map((p) => p[name]); });
    ["p50", "p95", "p99"].forEach((name, i) => {
      latencyChart.data.datasets[i].data = points.map((p) => (p[name] === null ? null : p[name] * 1e3));
    });
    rateChart.update();
    latencyChart.update();
  }

  function draw() {
    const { at, series } = history[history.length - 1], points = history.map((reading, i) => point(i)), last = points[points.length - 1];
    const build = all(series, "clicktower_build_info")[0], ready = sum(series, "clicktower_ready") === 1;
    const lead = document.getElementById("lead");
    lead.className = ready ? "lead" : "lead bad";
    lead.textContent = (ready ? "Ready" : "Going down") + " · version " + (build ? build.labels.version : "?") + " · " +
      sum(series, "clicktower_threads") + " threads · " + bytes(sum(series, "process_resident_memory_bytes")) + " resident · models loaded " +
      duration(Math.max(0, at / 1e3 - sum(series, "clicktower_models_loaded_timestamp_seconds"))) + " ago";
    show("request-rate", number(last.answered));
    show("candidate-rate", number(last.candidates));
    show("failure-rate", number(last.unanswered));
    show("p50", milliseconds(last.p50));
    show("p99", milliseconds(last.p99));
    show("waiting", number(sum(series, "clicktower_queue_requests")));
    show("requests", answered(series).toLocaleString("en"));
    show("candidates", sum(series, "clicktower_candidates_total").toLocaleString("en"));
    drawModels(series);
    drawExperiment(series);
    drawStages(series);
    drawCodes(series);
    drawTables(series);
    drawScores(series);
    drawCalibration(series);
    drawCharts(points, at);
  }

  async function read() {
    try {
      const answer = await fetch("/metrics", { cache: "no-store" });
      if (!answer.ok) throw new Error("the server says " + answer.status);
      history.push({ at: Date.now(), series: parse(await answer.text()) });
      if (history.length > KEPT) history.shift();
      draw();
      document.documentElement.dataset.readings = String(Number(document.documentElement.dataset.readings || 0) + 1);
    } catch (error) {
      const lead = document.getElementById("lead");
      lead.className = "lead bad";
      lead.textContent = "No answer from the server: " + error.message;
    }
    setTimeout(read, PERIOD_MS);
  }
  read();
})();
