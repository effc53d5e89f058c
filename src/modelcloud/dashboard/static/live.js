// A region of a page: patches what the server has drawn into place and emits what is done there.
// Must never: make markup of data; all markup comes from the server, which has escaped it.

// Of a file that travels with what a form says; a larger one is sent by a request of its own.
const MOST = 700000;
const KEEP = new Set(["open", "data-made"]);

function keyOf(node) {
  return node.nodeType === 1 ? node.id || node.dataset.key || null : null;
}

function same(a, b) {
  return a.nodeType === b.nodeType && a.nodeName === b.nodeName && keyOf(a) === keyOf(b);
}

function patchAttributes(from, to) {
  for (const { name } of from.dataset.keep === undefined ? [...from.attributes] : []) {
    if (!to.hasAttribute(name) && !KEEP.has(name)) from.removeAttribute(name);
  }
  for (const { name, value } of to.attributes) {
    if (KEEP.has(name) && from.nodeName !== "SELECT") continue;
    if (name === "hidden" && from.dataset.keep !== undefined) continue;
    if (from.getAttribute(name) !== value) from.setAttribute(name, value);
  }
  if (from.nodeName === "INPUT" && to.hasAttribute("data-force")) {
    if (from.type === "checkbox" || from.type === "radio") from.checked = to.checked;
    else if (from !== document.activeElement) from.value = to.value;
  }
}

function patchNode(from, to) {
  if (from.nodeType !== 1) {
    if (from.nodeValue !== to.nodeValue) from.nodeValue = to.nodeValue;
    return;
  }
  if (from.isEqualNode(to)) return;
  patchAttributes(from, to);
  if (from.dataset.keep === undefined) patchChildren(from, to);
}

function patchChildren(from, to) {
  const keyed = new Map();
  for (const child of from.childNodes) if (keyOf(child)) keyed.set(keyOf(child), child);
  let at = from.firstChild;
  for (const wanted of [...to.childNodes]) {
    const key = keyOf(wanted);
    let found = key ? keyed.get(key) : at;
    while (!key && found && keyOf(found)) found = found.nextSibling;
    if (found && same(found, wanted)) {
      if (found !== at) from.insertBefore(found, at);
      else at = at.nextSibling;
      patchNode(found, wanted);
    } else {
      from.insertBefore(wanted, at);
    }
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

// What a colour of the style sheet is in the theme of the moment.
function tokens() {
  const probe = document.createElement("i");
  probe.hidden = true;
  document.body.append(probe);
  const found = new Map();
  return {
    of(name) {
      if (!found.has(name)) {
        probe.style.color = `var(--${name})`;
        found.set(name, getComputedStyle(probe).color);
      }
      return found.get(name);
    },
    done: () => probe.remove(),
  };
}

// The server names colours by their tokens, so that charts follow the theme.
function coloured(value, token) {
  if (typeof value === "string" && value.startsWith("$")) return token(value.slice(1));
  if (Array.isArray(value)) return value.map((one) => coloured(one, token));
  if (value && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, coloured(v, token)]));
  }
  return value;
}

const AGO = [
  [60, 1, "second"],
  [3600, 60, "minute"],
  [86400, 3600, "hour"],
  [Infinity, 86400, "day"],
];

function showTime(element) {
  const at = new Date(element.dateTime);
  if (Number.isNaN(at.getTime())) return;
  const language = document.documentElement.lang || "en";
  element.title = at.toLocaleString(language, { dateStyle: "medium", timeStyle: "long" });
  let text;
  if (element.dataset.as === "clock") {
    text = at.toLocaleTimeString(language, { hour12: false });
  } else if (element.dataset.as === "date") {
    text = at.toLocaleString(language, { dateStyle: "medium", timeStyle: "short" });
  } else {
    const seconds = Math.max(0, (Date.now() - at) / 1000);
    const [, unit, name] = AGO.find(([limit]) => seconds < limit);
    const count = Math.floor(seconds / unit);
    const format = new Intl.RelativeTimeFormat(language, { numeric: "auto", style: "short" });
    text = format.format(name === "second" ? -Math.floor(count / 10) * 10 : -count, name);
  }
  if (element.textContent !== text) element.textContent = text;
}

// A moment in a field, in the time of the browser.
function fillTime(input) {
  const at = new Date(input.dataset.at);
  input.dataset.made = "1";
  if (Number.isNaN(at.getTime())) return;
  input.value = new Date(at - at.getTimezoneOffset() * 60000).toISOString().slice(0, 16);
}

async function copy(text) {
  if (navigator.clipboard && window.isSecureContext) return navigator.clipboard.writeText(text);
  const area = document.createElement("textarea");
  area.value = text;
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

function readFile(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}

// Sends a file by its own request, of which the browser tells how far it is.
function send(file, place) {
  const bar = place?.querySelector("progress");
  const says = place?.querySelector("[role=status]");
  if (place) {
    place.hidden = false;
    bar.removeAttribute("value");
    says.textContent = file.name;
  }
  return new Promise((resolve) => {
    const request = new XMLHttpRequest();
    request.open("POST", "/files/archive");
    request.setRequestHeader("content-type", "application/octet-stream");
    request.setRequestHeader("x-form-token", document.documentElement.dataset.form);
    request.upload.onprogress = (seen) => {
      if (!seen.lengthComputable || !place) return;
      bar.max = seen.total;
      bar.value = seen.loaded;
      says.textContent = `${file.name} · ${Math.floor((100 * seen.loaded) / seen.total)} %`;
    };
    request.onloadend = () => {
      if (place) place.hidden = true;
      let answer = {};
      try {
        answer = JSON.parse(request.responseText);
      } catch {
        answer = { detail: request.status ? request.statusText : place?.dataset.lost };
      }
      resolve({ status: request.status, ...answer });
    };
    request.send(file);
  });
}

// A file as a form tells it: its content, or that it is large, or where it was sent to.
async function told(control, file, sends) {
  if (file.size <= MOST) return readFile(file);
  if (!sends) return `large:${file.size}:${file.type}`;
  const answer = await send(file, document.getElementById(control.dataset.progress));
  return answer.status === 201 ? `sent:${answer.upload}:${file.type}` : `lost:${answer.detail ?? "what a broken connection left"}`;
}

async function fieldsOf(form, sends = false) {
  const fields = {};
  for (const control of form.elements) {
    if (!control.name || control.disabled) continue;
    if (control.type === "checkbox") fields[control.name] = control.checked;
    else if (control.type === "radio") {
      if (control.checked) fields[control.name] = control.value;
    } else if (control.type === "file") {
      const file = control.files[0];
      if (file) fields[control.name] = await told(control, file, sends);
    } else if (control.type === "datetime-local" && control.value) {
      fields[control.name] = new Date(control.value).toISOString();
    } else fields[control.name] = control.value;
  }
  return fields;
}

export default {
  template: `<component :is="as" v-bind="$attrs" ref="root"></component>`,
  inheritAttrs: false,
  props: { as: String, drawn: String },
  mounted() {
    const root = this.$refs.root;
    root.innerHTML = this.drawn;
    this.charts = new Map();
    this.timers = new Map();
    root.addEventListener("click", (event) => this.clicked(event));
    root.addEventListener("submit", (event) => this.submitted(event));
    root.addEventListener("input", (event) => this.typed(event));
    root.addEventListener("change", (event) => this.changed(event));
    root.addEventListener("cancel", (event) => this.cancelled(event), true);
    if (this.as === "main") {
      document.addEventListener("click", (event) => {
        for (const menu of document.querySelectorAll("details.menu[open]")) {
          if (!menu.contains(event.target)) menu.removeAttribute("open");
        }
      });
    }
    root.addEventListener("keydown", (event) => this.pressed(event));
    this.clock = setInterval(() => root.querySelectorAll("time").forEach(showTime), 5000);
    this.onTheme = () => this.dress(true);
    window.addEventListener("modelcloud-theme", this.onTheme);
    this.resizes = new ResizeObserver((seen) =>
      seen.forEach(({ target }) => this.charts.get(target)?.resize()),
    );
    if (this.as === "main") {
      window.addEventListener("popstate", () =>
        this.act({ do: "go", args: { to: location.pathname + location.search } }),
      );
    }
    this.dress();
  },
  beforeUnmount() {
    clearInterval(this.clock);
    window.removeEventListener("modelcloud-theme", this.onTheme);
    this.resizes.disconnect();
    for (const chart of this.charts.values()) chart.dispose();
  },
  methods: {
    redraw() {
      const template = document.createElement("template");
      template.innerHTML = this.drawn;
      patchChildren(this.$refs.root, template.content);
      this.dress();
    },
    act(told) {
      this.$emit("act", told);
    },
    // Adds lines at the end of a list that the server does not draw again, the oldest go.
    append(id, markup, most) {
      const list = document.getElementById(id);
      if (!list) return;
      const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
      const template = document.createElement("template");
      template.innerHTML = markup;
      list.append(template.content);
      while (list.childElementCount > most) list.firstElementChild.remove();
      list.querySelectorAll("time").forEach(showTime);
      if (atEnd) list.scrollTop = list.scrollHeight;
    },
    prepend(id, markup) {
      const list = document.getElementById(id);
      if (!list) return;
      const height = list.scrollHeight;
      const template = document.createElement("template");
      template.innerHTML = markup;
      list.prepend(template.content);
      list.querySelectorAll("time").forEach(showTime);
      list.scrollTop += list.scrollHeight - height;
    },
    settled() {
      this.$refs.root.querySelectorAll("[aria-busy]").forEach((busy) => {
        busy.removeAttribute("aria-busy");
        if (busy.dataset.wasEnabled) busy.disabled = false;
      });
    },
    busy(control) {
      control.setAttribute("aria-busy", "true");
    },
    dress(anew = false) {
      const root = this.$refs.root;
      root.querySelectorAll("time").forEach(showTime);
      root.querySelectorAll("input[data-at]:not([data-made])").forEach(fillTime);
      for (const dialog of root.querySelectorAll("dialog:not([open])")) {
        dialog.showModal();
        (dialog.querySelector("[autofocus]") || dialog.querySelector("input, select, button"))?.focus();
      }
      for (const list of root.querySelectorAll("[data-to-end]:not([data-made])")) {
        list.dataset.made = "1";
        list.scrollTop = list.scrollHeight;
      }
      for (const tab of root.querySelectorAll(".tabs a[aria-current]")) {
        const tabs = tab.parentNode;
        if (tabs.shown !== tab.href) tabs.scrollLeft = tab.offsetLeft - tabs.offsetLeft - 40;
        tabs.shown = tab.href;
      }
      this.draw(anew);
    },
    async draw(anew) {
      const places = [...this.$refs.root.querySelectorAll("[data-chart]")];
      for (const [place, chart] of this.charts) {
        if (!place.isConnected || anew) {
          chart.dispose();
          this.resizes.unobserve(place);
          this.charts.delete(place);
        }
      }
      if (!places.length) return;
      const { echarts } = await import("nicegui-echart");
      const colours = tokens();
      for (const place of places) {
        const told = place.dataset.chart;
        let chart = this.charts.get(place);
        if (chart && place.told === told) continue;
        if (!chart) {
          if (!place.isConnected) continue;
          chart = echarts.init(place, null, { renderer: "canvas" });
          this.charts.set(place, chart);
          this.resizes.observe(place);
        }
        place.told = told;
        chart.setOption(coloured(JSON.parse(told), colours.of), { notMerge: false, replaceMerge: ["series"] });
      }
      colours.done();
    },
    clicked(event) {
      const copies = event.target.closest("[data-copy]");
      if (copies) {
        const source = document.getElementById(copies.dataset.copy);
        copy(source ? (source.value ?? source.textContent) : copies.dataset.copy).then(() => {
          copies.dataset.copied = "1";
          setTimeout(() => delete copies.dataset.copied, 1500);
        });
        return;
      }
      const shuts = event.target.closest("[data-shut]");
      if (shuts) {
        shuts.closest("dialog")?.close();
        this.act({ do: "shut" });
        return;
      }
      const does = event.target.closest("button[data-do], a[data-do]");
      if (does && does.type !== "submit") {
        event.preventDefault();
        does.closest("td details.menu")?.removeAttribute("open");
        this.busy(does);
        this.act({ do: does.dataset.do, args: { ...does.dataset } });
        return;
      }
      const link = event.target.closest("a[href]");
      if (!link || event.button || event.metaKey || event.ctrlKey || event.shiftKey) return;
      if (link.target || link.dataset.plain !== undefined || !link.getAttribute("href").startsWith("/")) return;
      if (!window.socket?.connected) return; // the browser goes there by itself
      event.preventDefault();
      document.querySelectorAll("details.menu[open]").forEach((menu) => menu.removeAttribute("open"));
      history.pushState({}, "", link.href);
      document.documentElement.dataset.going = "1";
      this.act({ do: "go", args: { to: link.getAttribute("href") } });
    },
    async submitted(event) {
      const form = event.target.closest("form[data-do]");
      if (!form) return;
      event.preventDefault();
      const button = event.submitter || form.querySelector("[type=submit]");
      if (button) this.busy(button);
      clearTimeout(this.timers.get(form));
      const fields = await fieldsOf(form, true);
      if (button?.name) fields[button.name] = button.value;
      this.act({ do: form.dataset.do, args: { ...form.dataset }, fields });
    },
    typed(event) {
      const control = event.target;
      if (control.dataset.out) {
        const shown = document.getElementById(control.dataset.out);
        if (shown) shown.textContent = control.value;
      }
      const form = control.form;
      if (form?.dataset.draft) this.later(form, 200, form.dataset.draft);
      if (control.type === "search" && control.dataset.do) this.later(control, 200);
    },
    later(control, ms, name) {
      clearTimeout(this.timers.get(control));
      this.timers.set(
        control,
        setTimeout(async () => {
          if (name) this.act({ do: name, args: { ...control.dataset }, fields: await fieldsOf(control) });
          else this.act({ do: control.dataset.do, args: { ...control.dataset, value: control.value } });
        }, ms),
      );
    },
    async changed(event) {
      const control = event.target;
      if (control.dataset.upload) return this.upload(control);
      const form = control.form;
      if (form?.dataset.change) {
        return this.act({ do: form.dataset.change, args: { ...form.dataset, name: control.name }, fields: await fieldsOf(form) });
      }
      if (!control.dataset.do || control.type === "search") return;
      const value = control.type === "checkbox" ? control.checked : control.value;
      this.act({ do: control.dataset.do, args: { ...control.dataset, value } });
    },
    cancelled(event) {
      if (event.target.nodeName !== "DIALOG") return;
      this.act({ do: "shut" });
    },
    pressed(event) {
      const menu = event.target.closest("details.menu[open]");
      if (menu && event.key === "Escape") {
        menu.removeAttribute("open");
        menu.querySelector("summary").focus();
      }
      const tab = event.target.closest("[role=tab]");
      if (!tab || !["ArrowLeft", "ArrowRight"].includes(event.key)) return;
      const tabs = [...tab.closest("[role=tablist]").querySelectorAll("[role=tab]")];
      const step = event.key === "ArrowRight" ? 1 : tabs.length - 1;
      tabs[(tabs.indexOf(tab) + step) % tabs.length].focus();
    },
    async upload(control) {
      const file = control.files[0];
      const place = document.getElementById(control.dataset.upload);
      if (!file || !place) return;
      const answer = await send(file, place);
      this.act({ do: "uploaded", args: { name: file.name, ...answer } });
    },
  },
};
