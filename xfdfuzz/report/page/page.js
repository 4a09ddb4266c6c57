"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const by = (id) => document.getElementById(id);
  const root = document.documentElement;
  root.classList.add("is-live");

  // What data.py calls the parts of its tables.
  const [GROUP, NAME, QUIET, BLANK, WORDS] = [0, 1, 2, 3, 4];
  const [OP, RESULT, DIFFERENCE, BROKEN, EVENTS] = [0, 1, 2, 3, 4];
  const [REVISION, LABEL, STATE, RUN, COMMAND, MAIN] = [0, 1, 2, 3, 4, 5];

  const text = (number) => data.values[number];
  const path = (field) => {
    const group = data.groups[data.fields[field][GROUP]][0];
    return `${group}.${data.fields[field][NAME]}`;
  };
  const numbers = new Map(data.fields.map((_, field) => [path(field), field]));

  function make(tag, attributes, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (name === "onclick") element.addEventListener("click", value);
      else element.setAttribute(name, value);
    }
    element.append(...children.filter((child) => child !== null && child !== undefined));
    return element;
  }

  // -- runs ---------------------------------------------------------------------------------------------------------

  const unfolded = new Map();

  /** A run with its states: for each step the value of every field, and the step that wrote it last. */
  function unfold(number) {
    if (unfolded.has(number)) return unfolded.get(number);
    const steps = data.runs[number].map((step) => data.steps[step]);
    const values = [data.fields.map((field) => field[BLANK])];
    const writers = [data.fields.map(() => -1)];
    steps.forEach((step, at) => {
      const value = values[values.length - 1].slice();
      const writer = writers[writers.length - 1].slice();
      for (let i = 0; i < step[DIFFERENCE].length; i += 2) {
        value[step[DIFFERENCE][i]] = step[DIFFERENCE][i + 1];
        writer[step[DIFFERENCE][i]] = at;
      }
      values.push(value);
      writers.push(writer);
    });
    // behind step n is the state n; what was before the boot is nobody's
    values.shift();
    writers.shift();
    const run = { steps, ops: data.ops, values, writers, last: steps.length - 1 };
    run.read = (at, name) => (numbers.has(name) ? text(values[at][numbers.get(name)]) : "");
    run.bad = steps.map((_, at) => at).filter((at) => steps[at][BROKEN].length);
    unfolded.set(number, run);
    return run;
  }

  const worst = (broken) => {
    const order = ["panic", "corruption", "leak", "warn", "abi", "vmm"];
    return broken.map((one) => data.invariants[one[0]][1]).sort((a, b) => order.indexOf(a) - order.indexOf(b))[0] || "";
  };

  // -- lanes --------------------------------------------------------------------------------------------------------

  const actor = (step) => (/^(t\d+|v\d+|cpu\d+)\b/.exec(step[OP]) || [""])[0];

  /** The tasks, vCPUs and CPUs of a run that take part in it, in this order. */
  function lanesOf(run) {
    const tasks = new Set();
    const vcpus = new Set();
    run.steps.forEach((step, at) => {
      const who = actor(step);
      if (who.startsWith("t")) tasks.add(who);
      if (who.startsWith("v")) vcpus.add(who);
      if (at) for (const cpu of data.cpus) if (/^t/.test(run.read(at, `${cpu}.current`)) && at > 1) tasks.add(run.read(at, `${cpu}.current`));
      for (const vcpu of ["v0", "v1", "v2"]) if (run.read(at, `${vcpu}.exists`) === "1") vcpus.add(vcpu);
    });
    const sorted = (names) => [...names].sort();
    const lanes = [...sorted(tasks), ...sorted(vcpus)];
    return [...lanes, ...data.cpus];
  }

  /** How somebody is: k in the kernel, u in user mode, g in the guest, x exited, p present and off the CPU, o another. */
  function mode(run, at, lane) {
    if (lane.startsWith("cpu")) {
      if (/^v/.test(run.read(at, `${lane}.guest`))) return "g";
      const who = run.read(at, `${lane}.current`);
      return who.startsWith("t") ? mode(run, at, who) : "o";
    }
    if (run.read(at, `${lane}.exists`) !== "1") return "";
    if (lane.startsWith("v")) return { VCPU_IN_GUEST: "g", VCPU_EXITED: "x" }[run.read(at, `${lane}.mode`)] || "p";
    if (!run.read(at, `${lane}.on_cpu`).startsWith("cpu")) return "p";
    const vcpu = run.read(at, `${lane}.kvm_run`);
    if (vcpu.startsWith("v") && run.read(at, `${vcpu}.mode`) === "VCPU_IN_GUEST") return "g";
    return run.read(at, `${lane}.user_mode`) === "1" ? "u" : "k";
  }

  /** The CPU on which somebody is. */
  function cpuOf(run, at, who) {
    if (who.startsWith("cpu")) return who;
    const task = who.startsWith("v") ? run.read(at, `${who}.task`) : who;
    const cpu = task.startsWith("t") ? run.read(at, `${task}.on_cpu`) : "";
    return cpu.startsWith("cpu") ? cpu : "";
  }

  const running = (run, at, cpu) => {
    const guest = run.read(at, `${cpu}.guest`);
    return guest.startsWith("v") ? guest : run.read(at, `${cpu}.current`);
  };

  function drawLanes(run, at, lanes, wide) {
    const who = actor(run.steps[at]);
    const row = make("div", { class: "lanes" });
    lanes.forEach((lane) => {
      const cell = make("i", { class: lane.startsWith("cpu") ? "lane cpu" : "lane" });
      cell.append(make("b", { class: mode(run, Math.max(at - 1, 0), lane) }), make("b", { class: mode(run, at, lane) }));
      if (lane === who) cell.append(make("i", { class: "dot" }));
      if (lane.startsWith("cpu") && at > 1) {
        const now = running(run, at, lane);
        if (now !== running(run, at - 1, lane)) cell.append(make("em", {}, now));
      }
      row.append(cell);
    });
    const from = lanes.indexOf(who);
    const cpu = cpuOf(run, at, who) || cpuOf(run, Math.max(at - 1, 0), who);
    const to = lanes.indexOf(cpu);
    if (from >= 0 && to >= 0 && from !== to) {
      const line = make("i", { class: "link" });
      line.style.left = `${(from + 0.5) * wide}px`;
      line.style.width = `${(to - from) * wide}px`;
      row.append(line);
    }
    return row;
  }

  // -- what is shown --------------------------------------------------------------------------------------------------

  const shown = { revision: data.opens, step: 1, all: false, filter: "", drawn: -1, moved: false };
  /** The violation that the page is about on the revision that is shown. */
  const main = () => {
    const place = data.revisions[shown.revision][MAIN];
    return place && run().steps[place[0]][BROKEN][place[1]];
  };
  const run = () => unfold(data.revisions[shown.revision][RUN]);
  const narrow = window.matchMedia("(max-width: 820px)");

  /** On a narrow screen the state stands below its step. */
  function place(here) {
    const panel = by("panel");
    const steps = by("steps");
    const before = narrow.matches ? here : steps;
    // what is moved loses the focus
    if (panel.previousElementSibling !== before) before.after(panel);
  }

  function drawSteps() {
    const steps = by("steps");
    const now = run();
    const lanes = lanesOf(now);
    const wide = narrow.matches ? 30 : 46;
    steps.style.setProperty("--lanes", `${lanes.length * wide}px`);
    const head = make("div", { class: "head" }, make("span"), make("div", { class: "lanes" }), make("div", { class: "legend" }));
    const kind = (lane) => (lane.startsWith("cpu") ? "" : lane.startsWith("v") ? "guest" : "task");
    head.children[1].append(...lanes.map((lane) => make("b", { class: kind(lane) }, wide < 40 ? lane.replace("cpu", "c") : lane)));
    for (const [name, what] of [["k", "kernel"], ["u", "user"], ["g", "guest"], ["x", "exited"], ["o", "other task"]]) {
      head.children[2].append(make("i", { class: name }), what);
    }
    const list = make("div", { role: "listbox", "aria-label": "Steps" });
    now.steps.forEach((step, at) => {
      if (!at) return;
      const end = at > now.ops;
      const bad = worst(step[BROKEN]);
      const words = make("div", { class: "text" });
      if (end) words.append("at the end, when everything that was pending has come to its end");
      else words.append(step[OP], make("span", { class: step[RESULT] === "panic" ? "result panic" : "result" }, ` = ${step[RESULT]}`));
      for (const [invariant, message] of step[BROKEN]) {
        const [name, severity] = data.invariants[invariant];
        words.append(make("div", { class: `broken ${severity}` }, `! ${name}: ${message}`));
      }
      for (const event of step[EVENTS] || []) words.append(make("div", { class: "event" }, event));
      const row = make("div", { class: bad ? `row bad ${bad}` : "row", role: "option", "data-step": at, onclick: () => go(at) });
      row.append(make("div", { class: "nr" }, end ? "end" : String(at)), drawLanes(now, at, lanes, wide), words);
      list.append(row);
    });
    steps.after(by("panel"));
    steps.replaceChildren(head, list);
    const slider = by("slider");
    slider.max = now.last;
    by("ticks").replaceChildren(...now.bad.map((at) => {
      const tick = make("i", { class: worst(now.steps[at][BROKEN]), title: `step ${at}` });
      tick.style.left = `${now.last > 1 ? (100 * (at - 1)) / (now.last - 1) : 50}%`;
      return tick;
    }));
  }

  /** A value that may be broken between the parts of a mask. */
  const masked = (value) => value.split(/(?<=\|)/).flatMap((part, at) => (at ? [make("wbr"), part] : [part]));
  const jump = (at, label) => make("button", { type: "button", title: `go to step ${at}`, onclick: () => go(at) }, label || String(at));
  /** A name that may be broken behind its dots. */
  const breakable = (name) => name.split(/(?<=\.)/).flatMap((part) => [part, make("wbr")]);
  const words = (field) => data.fields[field][WORDS] || path(field);

  /** What points to the buffers that were allocated, vCPUs first, by what a buffer is called. */
  function owners(now, at) {
    const found = {};
    data.fields.forEach((of, field) => {
      const owner = path(field);
      const buffer = text(now.values[at][field]);
      if (/(^|[._])fpstate$/.test(of[NAME]) && buffer.startsWith("fpstate#") && !/^v/.test(found[buffer] || "")) {
        if (!found[buffer] || owner.startsWith("v")) found[buffer] = owner;
      }
    });
    return found;
  }

  /** What a field is called at a step: buffers are followed from who points to them, as in a trace. */
  const called = (now, at, field) => words(field).replace(/^fpstate#\d+/, (buffer) => owners(now, at)[buffer] || buffer);

  function drawViolation([invariant, message, reasons, story], at) {
    const [name, severity, why] = data.invariants[invariant];
    const box = make("div", { class: `violation ${severity}` }, make("p", {}, make("b", {}, name), ` ${message}`));
    if (reasons.length) {
      const list = make("div", { class: "fields because" });
      for (const [field, value, step, odd, found] of reasons) {
        const since = step === 0 ? "since the boot" : step > run().ops ? "at the end" : step === at ? "this step" : jump(step, `step ${step}`);
        list.append(
          make("span", { class: odd ? "name odd" : "name" }, ...breakable(called(run(), found ? at - 1 : at, field))),
          make("span", { class: odd ? "odd" : "" }, ...masked(text(value))),
          make("span", { class: "since" }, since),
        );
      }
      box.append(make("h3", {}, "because"), list);
    }
    if (story) box.append(make("p", { class: "story" }, `${story}.`));
    if (invariant !== (main() || [])[0]) box.append(make("p", { class: "why" }, why));
    return box;
  }

  const wanted = (field) => {
    const all = `${path(field)} ${words(field)}`.toLowerCase();
    return shown.filter.toLowerCase().split(/\s+/).every((word) => all.includes(word));
  };

  function drawChanges(now, at) {
    const list = make("div", { class: "fields changed" });
    const rest = make("div", { class: "fields changed" });
    const before = now.values[at - 1];
    const { [DIFFERENCE]: difference } = now.steps[at];
    const reasons = now.steps.flatMap((step) => step[BROKEN]).flatMap((broken) => broken[2]);
    const named = new Set(reasons.filter((reason) => reason[2] === at).map((reason) => reason[0]));
    for (let i = 0; i < difference.length; i += 2) {
      const field = difference[i];
      if (!wanted(field) || (data.fields[field][QUIET] && !shown.all)) continue;
      (named.has(field) ? list : rest).append(
        make("span", { class: "name" }, ...breakable(called(now, at, field))),
        make("span", {}, make("s", {}, ...masked(text(before[field]))), " ", ...masked(text(difference[i + 1]))),
        make("span"),
      );
    }
    const title = at > now.ops ? "Changed until the end" : `Changed by step ${at}`;
    const [some, more] = [list.childNodes.length, rest.childNodes.length / 3];
    if (!some || !more) return [make("h2", {}, title), some ? list : more ? rest : make("p", { class: "none" }, "nothing")];
    const folded = make("details", {}, make("summary", {}, `and ${more} more`), rest);
    folded.open = shown.all || Boolean(shown.filter);
    return [make("h2", {}, title), list, folded];
  }

  /** Whether what a group is about is there. */
  function present(now, at, group) {
    const name = group.replace(/^ghost\./, "");
    for (const flag of ["exists", "allocated", "valid"]) {
      if (numbers.has(`${name}.${flag}`)) return now.read(at, `${name}.${flag}`) === "1";
    }
    return true;
  }

  function about(now, at, group, kind) {
    if (kind.startsWith("ghost")) return "what it was told, by itself or by user space";
    if (kind !== "fpstates") return "";
    const pointers = data.fields.map((_, field) => field).filter((field) => /(^|[._])fpstate$/.test(data.fields[field][NAME]));
    return pointers.filter((field) => text(now.values[at][field]) === group).map(path).join(", ");
  }

  function drawState(now, at) {
    const parts = [make("h2", {}, at > now.ops ? "State at the end" : "State after it")];
    const changed = new Set(now.steps[at][DIFFERENCE].filter((_, i) => i % 2 === 0));
    data.groups.forEach(([group, kind], number) => {
      if (!present(now, at, group)) return;
      const list = make("div", { class: "fields" });
      data.fields.forEach((of, field) => {
        if (of[GROUP] !== number || !wanted(field)) return;
        const writer = now.writers[at][field];
        if (!shown.all && (of[QUIET] || writer < 1)) return;
        if (writer < 0) return;
        const name = / should have /.test(of[WORDS]) ? of[WORDS].replace(/^.* should have /, "") : of[NAME];
        list.append(
          make("span", { class: changed.has(field) ? "name odd" : "name" }, ...breakable(name)),
          make("span", {}, ...masked(text(now.values[at][field]))),
          make("span", { class: "since" }, writer > 0 ? jump(writer) : ""),
        );
      });
      if (!list.childNodes.length) return;
      const title = kind.startsWith("ghost") ? `${group.slice(6)} on an ideal machine` : group;
      parts.push(make("h3", {}, title, make("small", {}, about(now, at, group, kind))), list);
    });
    if (parts.length === 1) parts.push(make("p", { class: "none" }, shown.filter ? "nothing of that name" : "nothing yet"));
    return parts;
  }

  function draw() {
    const now = run();
    const revision = data.revisions[shown.revision];
    if (shown.drawn !== shown.revision) {
      drawSteps();
      drawHeader(revision);
      shown.drawn = shown.revision;
    }
    const at = shown.step;
    const step = now.steps[at];
    const origins = (broken) => new Set(broken.flatMap(([, , reasons]) => reasons.map((reason) => reason[2])));
    const causes = origins(main() ? [main()] : []);
    const others = origins(step[BROKEN]);
    for (const row of document.querySelectorAll(".row")) {
      const number = Number(row.dataset.step);
      row.setAttribute("aria-selected", number === at);
      row.classList.toggle("later", number > at);
      row.classList.toggle("cause", causes.has(number));
      row.classList.toggle("side", others.has(number) && !causes.has(number));
      const label = number > now.ops ? "end" : String(number);
      row.firstChild.textContent = causes.has(number) || others.has(number) ? `\u2192${label}` : label;
    }
    by("state").replaceChildren(
      ...step[BROKEN].map((violation) => drawViolation(violation, at)), ...drawChanges(now, at), ...drawState(now, at),
    );
    by("slider").value = at;
    by("position").textContent = at > now.ops ? "the end" : `step ${at} of ${now.ops}`;
    by("next").disabled = !now.bad.length;
    by("all").setAttribute("aria-pressed", shown.all);
    by("all").textContent = shown.all ? "all state" : "state touched so far";
    history.replaceState(null, "", `#${encodeURIComponent(revision[REVISION])}/${at}`);
    const here = document.querySelector('.row[aria-selected="true"]');
    place(here);
    // who opens a page on a narrow screen reads its head first
    if (shown.moved || !narrow.matches) here.scrollIntoView({ block: "nearest" });
  }

  function drawHeader(revision) {
    by("on").textContent = `on ${revision[LABEL]}`;
    by("command").textContent = `${data.command} ${revision[COMMAND]}`;
    const what = by("what");
    const clean = { clean: "Nothing is broken there.", partly: "Nothing is broken there, as far as it goes.", idle: "Nothing can happen there." };
    const other = main() && revision[STATE] !== "violates" ? `Not this finding. ${data.invariants[main()[0]][0]}: ` : "";
    what.textContent = main() ? `${other}${main()[1]}.` : clean[revision[STATE]];
    what.classList.toggle("clean", !main());
    document.querySelectorAll(".chip").forEach((chip, number) => {
      if (number === shown.revision) chip.setAttribute("aria-current", "true");
      else chip.removeAttribute("aria-current");
    });
  }

  // -- going about --------------------------------------------------------------------------------------------------

  function go(step) {
    shown.step = Math.max(1, Math.min(step, run().last));
    draw();
    shown.moved = true;
  }

  function turn(revision) {
    shown.revision = revision;
    go(shown.step);
  }

  function violation(forth) {
    const { bad } = run();
    if (!bad.length) return;
    const there = forth ? bad.find((at) => at > shown.step) : bad.filter((at) => at < shown.step).pop();
    go(there === undefined ? bad[forth ? 0 : bad.length - 1] : there);
  }

  function theme() {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : window.matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  }

  function all() {
    shown.all = !shown.all;
    draw();
  }

  function filter() {
    shown.filter = by("filter").value.trim();
    draw();
  }

  function leaveFilter() {
    by("filter").value = "";
    by("filter").blur();
    filter();
  }

  async function copy(words, button) {
    const label = button.textContent;
    try {
      await navigator.clipboard.writeText(words);
      button.textContent = "copied";
    } catch {
      const area = make("textarea");
      area.value = words;
      document.body.append(area);
      area.select();
      button.textContent = document.execCommand("copy") ? "copied" : "could not copy";
      area.remove();
    }
    setTimeout(() => { button.textContent = label; }, 1500);
  }

  /** The revision and the step of the address; without them the violation that the page is about. */
  function arrive() {
    const [, name, step] = /^#(.*)\/(\d+)$/.exec(location.hash) || [];
    const at = name === undefined ? -1 : data.revisions.findIndex((revision) => revision[REVISION] === decodeURIComponent(name));
    if (at >= 0) {
      shown.revision = at;
      shown.step = Number(step);
    } else {
      shown.revision = data.opens;
      const main = data.revisions[data.opens][MAIN];
      shown.step = main ? main[0] : data.ops;
    }
    go(shown.step);
  }

  const keys = {
    ArrowLeft: () => go(shown.step - 1), ArrowUp: () => go(shown.step - 1),
    ArrowRight: () => go(shown.step + 1), ArrowDown: () => go(shown.step + 1),
    Home: () => go(1), End: () => go(run().last),
    n: () => violation(true), N: () => violation(false),
    a: all, t: theme, "/": () => by("filter").focus(),
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target === by("filter")) {
      if (event.key === "Enter") by("filter").blur();
      if (event.key === "Escape") leaveFilter();
      return;
    }
    if (!keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  });
  by("slider").addEventListener("input", () => go(Number(by("slider").value)));
  by("filter").addEventListener("input", filter);
  by("back").addEventListener("click", () => go(shown.step - 1));
  by("forth").addEventListener("click", () => go(shown.step + 1));
  by("next").addEventListener("click", () => violation(true));
  by("all").addEventListener("click", all);
  by("copy").addEventListener("click", () => copy(by("command").textContent, by("copy")));
  by("copy-program").addEventListener("click", () => copy(by("program").textContent, by("copy-program")));
  document.querySelectorAll(".chip").forEach((chip, number) => chip.addEventListener("click", (event) => {
    event.preventDefault();
    turn(number);
  }));
  narrow.addEventListener("change", () => { shown.drawn = -1; draw(); });
  window.addEventListener("hashchange", arrive);
  arrive();
})();
