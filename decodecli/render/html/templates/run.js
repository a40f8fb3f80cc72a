"use strict";
// A run's steps under settings that are moved: exact for the whole vocabulary at any temperature. Of the
// full logits the page has, at the points `betas` (1 / T), the logarithm of the partition function f and
// its slope; between them a cubic runs (Hermite). Tokens behind the listed ones are known by their mass.
const data = JSON.parse(document.getElementById("decodecli-data").textContent);

function partition(step, beta) {
  const b = data.betas, last = b.length - 1;
  let k = 0;
  while (k < last - 1 && b[k + 1] < beta) k++;
  const h = b[k + 1] - b[k], s = (beta - b[k]) / h;
  const [y0, y1, m0, m1] = [step.f[k], step.f[k + 1], step.g[k] * h, step.g[k + 1] * h];
  const f = (2 * s ** 3 - 3 * s ** 2 + 1) * y0 + (s ** 3 - 2 * s ** 2 + s) * m0 +
    (3 * s ** 2 - 2 * s ** 3) * y1 + (s ** 3 - s ** 2) * m1;
  const slope = ((6 * s ** 2 - 6 * s) * y0 + (3 * s ** 2 - 4 * s + 1) * m0 +
    (6 * s - 6 * s ** 2) * y1 + (3 * s ** 2 - 2 * s) * m1) / h;
  return {f, entropy: Math.max(f - beta * slope, 0)};
}

// Probabilities of the listed tokens, and what the filters keep, in the order of transformers.
function distribution(step, settings) {
  const beta = 1 / settings.temperature, {f, entropy} = partition(step, beta);
  const tempered = step.rows.map(row => Math.exp(beta * (row.penalised - step.rows[0].penalised) - f));
  const behind = step.rows[tempered.length - 1].behind ? tempered.pop() : null;  // the chosen, far down
  let count = data.vocabulary, known = true, listed = tempered.length;
  let keep = tempered.map(() => true), mass = 1;
  if (settings.top_k > 0 && settings.top_k < count) {
    known = settings.top_k <= listed;
    count = settings.top_k;
    keep = tempered.map((_, k) => k < settings.top_k);
    mass = known ? sum(tempered, keep) : null;
  }
  if (settings.top_p < 1) {
    let before = 0, reached = false;
    keep = keep.map((kept, k) => {
      const stays = kept && (k === 0 || before < settings.top_p * (mass ?? 1));
      if (kept && !stays) reached = true;
      before += kept ? tempered[k] : 0;
      return stays;
    });
    reached = reached || (known && count <= listed) || before >= settings.top_p * (mass ?? 1);
    known = reached && mass !== null;
    if (known) { count = keep.filter(Boolean).length; mass = sum(tempered, keep); }
    else { mass = null; }
  }
  if (settings.min_p > 0) {
    const least = settings.min_p * tempered[0];
    keep = keep.map((kept, k) => kept && (k === 0 || tempered[k] >= least));
    if (tempered[listed - 1] < least) { known = true; }
    if (known && (tempered[listed - 1] < least || count <= listed)) {
      count = keep.filter(Boolean).length; mass = sum(tempered, keep);
    } else if (known && count > listed) { known = false; mass = null; }
  }
  const final = tempered.map((p, k) => keep[k] ? (mass === null ? null : p / mass) : 0);
  if (behind !== null) {
    tempered.push(behind);
    keep.push(!known || count === data.vocabulary);
    final.push(!known ? null : count === data.vocabulary ? behind : 0);
  }
  return {tempered, keep, final, entropy, known, count: known ? count : null};
}

function sum(values, keep) { return values.reduce((total, v, k) => total + (keep[k] ? v : 0), 0); }

function percent(p) {
  if (p === null) return "?";
  const s = 100 * p;
  return s === 0 ? "·" : s >= 99.95 ? "100.0%" : s >= 1 ? s.toFixed(1) + "%" :
    s >= 0.01 ? s.toFixed(2) + "%" : p.toExponential(0);
}

function element(tag, attributes = {}, text = "") {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.textContent = text;
  return node;
}

const SLIDERS = [
  {name: "temperature", label: "temperature", min: -3, max: 2.302, step: 0.001, start: data.temperature,
   value: x => Math.exp(x), at: v => Math.log(v), spell: v => v.toPrecision(3)},
  {name: "top_p", label: "top-p", min: 0.01, max: 1, step: 0.01, start: data.top_p,
   value: x => x, at: v => v, spell: v => v >= 1 ? "off" : v.toFixed(2)},
  {name: "top_k", label: "top-k", min: 0, max: 101, step: 1, start: data.top_k,
   value: x => x > 100 ? 0 : Math.max(x, 1), at: v => v === 0 || v > 100 ? 101 : v,
   spell: v => v === 0 ? "off" : String(v)},
  {name: "min_p", label: "min-p", min: 0, max: 1, step: 0.01, start: data.min_p,
   value: x => x, at: v => v, spell: v => v === 0 ? "off" : v.toFixed(2)},
];

function build(root) {
  const settings = {}, outputs = {};
  let chosen = 0;
  const text = element("p", {class: "text", "aria-label": "The text; choose a token"});
  if (data.prompt) text.append(element("span", {class: "unscored"}, data.prompt));
  const tokens = data.steps.map((step, k) => {
    const leaves = step.whatIf.filter(other => other.first).map(other => other.settings).join(", ");
    const node = element("span", {role: "button", tabindex: "-1",
      class: "token p" + step.level + (leaves ? " leaves" : ""),
      "aria-label": `step ${k + 1}, ${step.token}, ${percent(Math.exp(step.logprob))}` +
        (leaves ? `; here ${leaves} first draws another` : "")}, step.text || "⋅");
    node.addEventListener("click", () => choose(k));
    text.append(node);
    return node;
  });
  const controls = element("div", {class: "controls"});
  for (const slider of SLIDERS) {
    const label = element("label", {}), output = element("output");
    const input = element("input", {type: "range", min: slider.min, max: slider.max, step: slider.step,
      name: slider.name});
    input.value = slider.at(slider.start);
    const read = () => {
      settings[slider.name] = slider.value(Number(input.value));
      output.textContent = slider.spell(settings[slider.name]);
      input.setAttribute("aria-valuetext", output.textContent);
    };
    read();
    input.addEventListener("input", () => { read(); show(); });
    label.append(element("span", {}, slider.label), input, output);
    controls.append(label);
    outputs[slider.name] = {input, read};
  }
  const reset = element("button", {type: "button"}, "as the run was");
  reset.addEventListener("click", () => {
    for (const slider of SLIDERS) {
      outputs[slider.name].input.value = slider.at(slider.start);
      outputs[slider.name].read();
    }
    settings.temperature = data.temperature;
    show();
  });
  controls.append(reset);
  const title = element("h2", {id: "step", "aria-live": "polite"}), facts = element("p", {class: "facts"});
  const others = element("p", {class: "facts others"});
  const table = element("table", {"aria-labelledby": "step"}), more = element("p", {class: "note"});

  function choose(k) {
    chosen = Math.max(0, Math.min(k, data.steps.length - 1));
    tokens.forEach((node, number) => {
      node.setAttribute("aria-current", String(number === chosen));
      node.tabIndex = number === chosen ? 0 : -1;  // one stop for tab; arrows move within
    });
    show();
  }

  function show() {
    const step = data.steps[chosen], now = distribution(step, settings);
    title.textContent = `#${chosen + 1} ${step.token} · rank ${step.rank} · kept ${step.kept}`;
    const kept = now.known ? `${now.count.toLocaleString("en")} kept` : "more kept than are listed here";
    facts.textContent = `entropy ${partition(step, 1).entropy.toFixed(2)} at T=1, ` +
      `${now.entropy.toFixed(2)} at T=${settings.temperature.toPrecision(3)} · ${kept}`;
    others.textContent = step.whatIf.map(other => `${other.settings} draws ` + (
      other.token === null ? "what is not known" : other.same ? "the same token" :
        `“${other.token}”` + (other.first ? " (the first that differs)" : ""))).join(" · ");
    others.hidden = !step.whatIf.length;
    table.replaceChildren();
    const head = element("tr");
    for (const name of ["#", "token", "logit", "T=1", `T=${settings.temperature.toPrecision(3)}`, "final", ""])
      head.append(element("th", {scope: "col"}, name));
    table.append(element("thead"));
    table.firstChild.append(head);
    const body = element("tbody"), unit = distribution(step, {temperature: 1, top_p: 1, top_k: 0, min_p: 0});
    step.rows.slice(0, 25).forEach((row, k) => {
      const line = element("tr", {class: row.chosen ? "chosen" : now.keep[k] ? "" : "removed"});
      const cells = [(row.chosen ? "▸ " : "") + row.rank, row.token, row.logit.toFixed(2),
        percent(row.probability ?? unit.tempered[k]), percent(now.tempered[k]), percent(now.final[k])];
      cells.forEach((cell, number) => line.append(element("td", number === 1 ? {class: "word"} : {}, cell)));
      const bar = element("td", {class: "bar"});
      if (row.removed) bar.textContent = "the run: " + row.removed;
      else {
        const mark = element("i");
        mark.style.width = `${9 * (now.final[k] ?? now.tempered[k])}em`;
        bar.append(mark);
      }
      line.append(bar);
      body.append(line);
    });
    table.append(body);
    const listed = now.tempered.reduce((a, b) => a + b, 0);
    more.textContent = `${(data.vocabulary - step.rows.length).toLocaleString("en")} more tokens hold ` +
      `${percent(Math.max(1 - listed, 0))} at this temperature` +
      (now.known ? "." : "; these filters keep some of them, so that final is not known.");
  }

  root.addEventListener("keydown", event => {
    if (event.target.type === "range") return;
    const move = {ArrowRight: 1, ArrowLeft: -1}[event.key];
    if (move === undefined) return;
    choose(chosen + move);
    tokens[chosen].focus();
    event.preventDefault();
  });
  const frame = element("div", {class: "table", tabindex: "0", role: "region", "aria-labelledby": "step"});
  frame.append(table);
  root.append(text, controls, title, facts, others, frame, more);
  choose(0);
}

const root = document.getElementById("decodecli-run");
if (root && data.steps.length) {
  build(root);
  document.querySelectorAll(".static").forEach(node => { node.hidden = true; });
}
