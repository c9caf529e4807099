// Keeps an open page true: asks for what has changed, and shows times in the reader's own zone.
// Without it the page can be read all the same.
"use strict";

(() => {
  const LIVE_MS = 3000; // between two questions
  const BUSY_MS = 1000; // while a repair or a probe is under way on a channel's page
  const STATUS_MS = 60000; // on a status link's page
  const QR_MS = 600; // while a code is shown
  const QR_LEFT_MS = 5000; // in which the code can still turn out to have been scanned
  const QR_MOST_MS = 10 * 60 * 1000; // then the page is presumably unattended
  const TICK_MS = 5000; // between two looks at the clock
  const ANSWER_MS = 15000; // in which an answer must be there in full
  const PAIR_MS = 180000; // the same for a code that the gateway makes

  const root = document.documentElement;
  const lang = root.lang;
  const and = (address, more) => `${address}${address.includes("?") ? "&" : "?"}${more}`;
  const $ = (selector, within = document) => within.querySelector(selector);
  const $$ = (selector, within = document) => [...within.querySelectorAll(selector)];
  root.classList.add("live");

  // Times.

  const relative = new Intl.RelativeTimeFormat(lang, { numeric: "auto" });
  const absolute = new Intl.DateTimeFormat(lang, { dateStyle: "medium", timeStyle: "long" });
  const clock = new Intl.DateTimeFormat(lang, { timeStyle: "short" });
  const dated = new Intl.DateTimeFormat(lang, { day: "numeric", month: "short", hour: "numeric", minute: "2-digit" });
  const day = new Intl.DateTimeFormat(lang, { weekday: "short" });
  const hour = new Intl.DateTimeFormat(lang, { weekday: "short", hour: "2-digit", minute: "2-digit" });
  const units = [["day", 86400, "d"], ["hour", 3600, "h"], ["minute", 60, "min"], ["second", 1, "s"]];

  function unitOf(seconds) {
    return units.find(([, size]) => Math.abs(seconds) >= size) || units[3];
  }

  function ago(seconds) {
    const [unit, size, symbol] = unitOf(seconds);
    const words = relative.format(-Math.trunc(seconds / size), unit);
    return words.replace(/(\d)\s+\p{L}+/u, `$1 ${symbol}`);  // "9 hours ago" to "9 h ago"
  }

  function lasted(seconds) {
    const [, size, symbol] = unitOf(seconds);
    return `${Math.floor(seconds / size)} ${symbol}`;
  }

  function timeOf(at) {
    return (at.toDateString() === new Date().toDateString() ? clock : dated).format(at);
  }

  function setText(element, text) {
    if (element.textContent !== text) element.textContent = text;
  }

  function showTimes(within = document) {
    const now = Date.now();
    for (const time of $$("time", within)) {
      const at = new Date(time.dateTime);
      const seconds = (now - at) / 1000;
      const title = absolute.format(at);
      if (time.title !== title) time.title = title;
      const { as } = time.dataset;
      if (as === "at") setText(time, timeOf(at));
      else if (as === "for") setText(time, lasted(Math.max(0, seconds)));
      else setText(time, ago(as === "in" ? Math.min(0, seconds) : seconds));
    }
    for (const span of $$("[data-day]", within)) setText(span, day.format(span.dataset.day * 1000));
    for (const bar of $$("[data-hour]", within)) {
      setText($("title", bar), `${hour.format(bar.dataset.hour * 1000)}: ${bar.dataset.words}`);
    }
    for (const bar of $$(".bar", within)) {
      const part = Math.max(0, now / 1000 - bar.dataset.since) / bar.dataset.limit;
      bar.firstElementChild.style.width = `${Math.min(100, part * 100)}%`;
      bar.classList.toggle("near", part > 0.75 && part <= 1);
      bar.classList.toggle("over", part > 1);
    }
  }

  // Asking.

  const stale = $("#stale");
  let lastAnswer = new Date();

  function request(address, options = {}, ms = ANSWER_MS) {
    const signal = AbortSignal.timeout?.(ms); // unknown to phones of 2021
    return fetch(address, { credentials: "same-origin", cache: "no-store", signal, ...options });
  }

  async function ask(address, read = (answer) => answer.json()) {
    let answer = null;
    let body = {};
    try {
      answer = await request(address);
      // An answer can also be cut off in its middle.
      if (answer.ok && answer.status !== 204) body = await read(answer);
    } catch {
      answer = null;
    }
    const alone = document.body.classList.contains("alone");
    if (answer && (answer.status === 401 || (alone && answer.status === 404))) {
      if (!alone) {
        stale.hidden = false;
        setText(stale, document.body.dataset.loginText);
      }
      location.reload(); // it says that the session, or the link, has ended
      return null;
    }
    if (!answer || !answer.ok) {
      stale.hidden = false;
      setText(stale, `${document.body.dataset.hiddenText} ${timeOf(lastAnswer)}.`);
      return null;
    }
    stale.hidden = true;
    lastAnswer = new Date();
    return body;
  }

  function parsed(html) {
    const template = document.createElement("template");
    template.innerHTML = html;
    return template.content;
  }

  const partOf = (one) => one.closest("[data-part]")?.dataset.part;

  // What stays of a link, a button or a summary when its words or its state change.
  function identity(one) {
    const names = ["href", "formaction", "value"].map((name) => one.getAttribute(name));
    return [...names, one.closest("details")?.dataset.id, partOf(one)].join(" ");
  }

  // Changes the page, and keeps the keyboard's focus: on the same element, or at least in its part.
  function change(within, work) {
    const { activeElement: old } = document;
    const had = within.contains(old);
    work();
    if (!had) return;
    const same = $$(old.tagName, within).find((one) => identity(one) === identity(old) && !one.disabled);
    const next = same ?? $(`[data-part=${partOf(old)}]`, within);
    if (next?.dataset.part) next.tabIndex = -1; // so that it can have the focus
    next?.focus({ preventScroll: true });
  }

  // Does work again and again while the page can be seen, and at once when it comes back to sight.
  function repeat(work, pause) {
    let timer = 0;
    let running = false;
    let again = false; // something has changed meanwhile
    async function run() {
      clearTimeout(timer);
      again = running;
      if (running) return;
      running = true;
      try {
        if (!document.hidden) await work();
      } finally {
        running = false;
        timer = setTimeout(run, again ? 0 : pause());
      }
    }
    document.addEventListener("visibilitychange", () => { if (!document.hidden) run(); });
    timer = setTimeout(run, pause());
    return run;
  }

  // The tab's title counts the channels that need attention.
  function countInTitle() {
    const count = Number($("[data-attention]")?.dataset.attention);
    const title = document.title.replace(/^\(\d+\) /, "");
    document.title = count ? `(${count}) ${title}` : title;
  }

  // All channels.

  function overview(list) {
    const form = $("#filter");
    const empty = $("#empty");
    let tag = list.dataset.tag;
    const rows = new Map($$(".row", list).map((row) => [row.dataset.key, row]));

    async function update() {
      const query = new URLSearchParams(new FormData(form));
      const filtered = query.toString();
      query.set("since", tag);
      const body = await ask(`${list.dataset.live}?${query}`);
      if (!body || !body.tag || filtered !== new URLSearchParams(new FormData(form)).toString()) return;
      tag = body.tag;
      const head = $("#head");
      if (head.dataset.html !== body.head) {
        head.dataset.html = body.head;
        change(head, () => head.replaceChildren(parsed(body.head)));
        countInTitle();
      }
      for (const [key, html] of Object.entries(body.rows)) {
        const row = parsed(html).firstElementChild;
        showTimes(row);
        const old = rows.get(key);
        if (old && old.isConnected) change(list, () => old.replaceWith(row));
        rows.set(key, row);
      }
      const order = new Set(body.order);
      for (const key of rows.keys()) if (!order.has(key)) rows.delete(key);
      const wanted = body.order.map((key) => rows.get(key)).filter(Boolean);
      // The answer holds no unchanged row that has come up among those that are shown.
      if (wanted.length < body.order.length) tag = "";
      const shown = list.children;
      if (wanted.length !== shown.length || wanted.some((row, index) => row !== shown[index])) {
        change(list, () => list.replaceChildren(...wanted));
      }
      if (rows.size > 4) form.hidden = false; // as in overview.html
      if (rows.size) setText(empty, empty.dataset.noMatch);
      empty.hidden = wanted.length > 0;
    }

    const run = repeat(update, () => LIVE_MS);
    let typing = 0;
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("input", () => {
      clearTimeout(typing);
      typing = setTimeout(() => {
        tag = ""; // the order and the rows of another choice are all new
        const query = new URLSearchParams(new FormData(form));
        history.replaceState(null, "", `?${query}`);
        run();
      }, 150);
    });
  }

  // One channel.

  function channel(live) {
    let tag = live.dataset.tag;
    // What the server has sent of each part; the script changes the parts themselves.
    const htmls = new Map($$("[data-part]", live).map((part) => [part.dataset.part, part.outerHTML]));

    async function update() {
      const body = await ask(and(live.dataset.live, `since=${encodeURIComponent(tag)}`));
      if (!body || !body.tag) return;
      tag = body.tag;
      const fresh = [...parsed(body.parts).children];
      for (const [index, part] of fresh.entries()) {
        const name = part.dataset.part;
        const html = part.outerHTML;
        if (htmls.get(name) === html) continue;
        htmls.set(name, html);
        const old = $(`[data-part=${name}]`, live);
        // The code's own part is kept up by itself.
        if (old && name === "qr" && !old.classList.contains("connected")) {
          delete old.dataset.left;
          continue;
        }
        showTimes(part);
        for (const open of $$("details[open]", old ?? part)) {
          const same = $$("details", part).find((one) => one.dataset.id === open.dataset.id);
          if (same) same.open = true;
        }
        if (old) change(live, () => old.replaceWith(part));
        else $(`[data-part=${fresh[index - 1].dataset.part}]`, live).after(part);
        if (name === "status") countInTitle();
        if (name === "qr") qr(part, run);
      }
      const gone = $("[data-part=qr]", live);
      if (gone && !fresh.some((part) => part.dataset.part === "qr")) {
        htmls.delete("qr"); // another code may be needed later
        if (!$(".again", gone).hidden) gone.remove(); // it asks no more
        else if (!gone.classList.contains("connected")) gone.dataset.left ??= Date.now();
      }
    }

    const run = repeat(update, () => ($(".steps [aria-current], .busy", live) ? BUSY_MS : LIVE_MS));
    const part = $("[data-part=qr]", live);
    if (part) qr(part, run);
  }

  // The code is polled more often than anything else, as long as it may be scanned.
  function qr(part, refresh) {
    const image = $(".code-image", part);
    const box = $(".code", part);
    const words = $(".qr-words", part);
    const again = $(".again", part);
    let number = -1;
    let until = Date.now() + QR_MOST_MS;
    let timer = 0;

    function connected() {
      part.classList.add("connected");
      for (const more of $$(".pair, .how .send, .note", part.parentElement)) more.remove();
      image.remove();
      box.classList.remove("waiting");
      $(".done-sign", part).hidden = false;
      $("h2", part).textContent = words.dataset.connectedTitle;
      $("ol", part).remove();
      words.textContent = words.dataset.connectedText;
      refresh();
    }

    async function look() {
      if (!part.isConnected) return;
      if (Date.now() - part.dataset.left > QR_LEFT_MS) return part.remove();
      if (Date.now() > until && !part.dataset.left) {
        box.classList.add("waiting");
        setText(words, words.dataset.stoppedText);
        again.hidden = false;
        return;
      }
      if (!document.hidden) {
        const body = await ask(part.dataset.qr);
        if (body && body.state === "connected") return connected();
        if (body && body.state) {
          box.classList.toggle("waiting", body.state !== "code" || !body.number);
          setText(words, body.words);
          if (body.state === "code" && body.number !== number) {
            number = body.number;
            image.src = and(part.dataset.image, number);
          }
        }
      }
      timer = setTimeout(look, QR_MS);
    }

    again.addEventListener("click", () => {
      until = Date.now() + QR_MOST_MS;
      again.hidden = true;
      clearTimeout(timer);
      look();
    });
    box.classList.add("waiting");
    const pair = $(".pair", part);
    if (pair) pairing(pair);
    look();
  }

  // The code that is typed on the phone: asked for by a person each time, and never by itself.
  function pairing(pair) {
    const form = $("form", pair);
    const button = $("button", form);
    const made = $(".pair-made", pair);
    const words = $(".pair-words", pair);
    const left = $(".pair-left", pair);
    const other = $(".other", pair);
    const result = $(".pair-result", pair);
    let until = 0;

    function count() {
      const seconds = Math.ceil((until - Date.now()) / 1000);
      setText(left, seconds > 0 ? result.dataset.left.replace("{}", seconds) : result.dataset.over);
      made.classList.toggle("over", seconds <= 0);
      if (pair.isConnected && seconds > 0) setTimeout(count, 500);
    }

    async function submit() {
      button.disabled = other.disabled = true;
      let body = {};
      try {
        const sent = new URLSearchParams(new FormData(form));
        body = await (await request(form.action, { method: "POST", body: sent }, PAIR_MS)).json();
      } catch {
        body = {};
      }
      button.disabled = other.disabled = false;
      made.hidden = !body.code;
      words.hidden = Boolean(body.code);
      if (body.code) {
        const bare = body.code.replace(/-/g, "");
        setText($(".pair-code", made), `${bare.slice(0, 4)}-${bare.slice(4)}`);
        until = Date.now() + body.expires_in * 1000;
        count();
      } else {
        setText(words, body.error || form.dataset.failed);
      }
      other.hidden = !body.other;
      if (body.other) {
        other.dataset.number = body.other;
        other.textContent = other.dataset.try.replace("{}", `+${body.other}`);
      }
    }

    form.addEventListener("submit", (event) => {
      event.preventDefault();
      submit();
    });
    other.addEventListener("click", () => {
      $("input", form).value = `+${other.dataset.number}`;
      submit();
    });
  }

  // The page of a status link.
  function status(card) {
    repeat(async () => {
      const html = await ask(location.href, (answer) => answer.text());
      const fresh = html && $("#status", parsed(html));
      if (!fresh) return;
      showTimes(fresh);
      if (!fresh.isEqualNode(card)) card.replaceWith(fresh);
      card = $("#status");
    }, () => STATUS_MS);
  }

  // The page of a channel's links, shown above the channel's own.
  function sharing(dialog) {
    let sending = false;
    async function show(address, options) {
      const answer = await request(address, options);
      const body = $("#share-body", parsed(await answer.text()));
      if (!answer.ok || !body) return location.reload();
      dialog.firstElementChild.replaceWith(body);
      dialog.scrollTop = 0;
      links(dialog);
      showTimes(dialog);
      if (!dialog.open) dialog.showModal();
    }
    document.addEventListener("click", (event) => {
      const link = event.target.closest("a.share");
      if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      show(link.href);
    });
    dialog.addEventListener("submit", (event) => {
      if (event.target.method === "dialog") return; // which closes it
      event.preventDefault();
      if (sending) return; // a second click would make a second link
      sending = true;
      const body = new URLSearchParams(new FormData(event.target, event.submitter));
      show(event.target.action, { method: "POST", body }).finally(() => { sending = false; });
    });
  }

  function links(within) {
    const made = $(".made", within);
    if (!made) return;
    const field = $(".link", made);
    const share = $(".web-share", made);
    const copy = $(".copy", made);
    share.hidden = !navigator.share;
    copy.classList.toggle("primary", share.hidden);
    share.addEventListener("click", () => {
      navigator.share({ text: share.dataset.text, url: field.value }).catch(() => {});
    });
    copy.hidden = false;
    copy.addEventListener("click", async () => {
      field.select();
      try {
        await navigator.clipboard.writeText(field.value);
      } catch {
        document.execCommand("copy"); // the way without TLS, and where the browser refuses the other
      }
      copy.textContent = copy.dataset.done;
    });
  }

  const list = $("#channels");
  if (list) overview(list);
  const live = $("#live");
  if (live) channel(live);
  const alone = $("#qr[data-alone]");
  if (alone) qr(alone, () => {});
  const card = $("#status");
  if (card) status(card);
  const dialog = $("#share");
  if (dialog) sharing(dialog);
  else links(document);
  showTimes();
  setInterval(showTimes, TICK_MS);
})();
