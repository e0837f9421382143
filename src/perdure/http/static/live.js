// Live pages: one event stream for the tab, for every element with data-topic.
// An element gets a DOM event "live" for each event (detail: its data), and "changed" at most twice
// a second; an update that fails is asked for again, later and later. The stream is closed while
// the tab is hidden and goes on where it was.
"use strict";

(() => {
  const APART_MS = 500;
  const WAIT_MS = 500;
  const WAIT_MS_MAX = 20000;
  const MISSED_MS = 2000;
  const MISSED_MS_MAX = 60000;
  let stream = null;
  let last = "";
  let failures = 0;
  let opened = "";
  let retry = 0;

  const wanted = () => {
    const found = new Set();
    for (const element of document.querySelectorAll("[data-topic]")) {
      for (const topic of element.dataset.topic.split(/\s+/)) if (topic) found.add(topic);
    }
    return [...found].sort();
  };

  const show = (text, away) => {
    const state = document.getElementById("live-state");
    if (!state) return;
    state.hidden = !text;
    state.classList.toggle("away", away);
    if (state.textContent !== text) state.textContent = text;
  };

  // --- telling elements ---------------------------------------------------------------------------

  const told = new WeakMap();

  const stateOf = (element) => {
    if (!told.has(element)) told.set(element, { at: 0, timer: 0, again: 0, wait: MISSED_MS });
    return told.get(element);
  };

  const changed = (element) => {
    const state = stateOf(element);
    if (state.timer) return;
    const wait = Math.max(state.at + APART_MS - Date.now(), 0);
    state.timer = setTimeout(() => {
      state.timer = 0;
      state.at = Date.now();
      // What has taken its place meanwhile may be older than the change.
      const there = element.isConnected ? element : element.id && document.getElementById(element.id);
      if (there) there.dispatchEvent(new CustomEvent("changed"));
    }, wait);
  };

  // The answer to a "changed" has not come: nothing else may follow.
  const missed = (element) => {
    const state = stateOf(element);
    clearTimeout(state.again);
    state.again = setTimeout(() => changed(element), state.wait);
    state.wait = Math.min(2 * state.wait, MISSED_MS_MAX);
  };
  const passes = (status) => status >= 500 || status === 429;
  document.addEventListener("htmx:response:error", (event) => {
    if (event.target.matches?.("[data-topic]") && passes(event.detail.ctx.response.status)) missed(event.target);
  });
  document.addEventListener("htmx:error", (event) => event.target.matches?.("[data-topic]") && missed(event.target));

  const tell = (data) => {
    for (const element of document.querySelectorAll("[data-topic]")) {
      if (!element.dataset.topic.split(/\s+/).includes(data.topic)) continue;
      element.dispatchEvent(new CustomEvent("live", { detail: data, bubbles: true }));
      stateOf(element).wait = MISSED_MS;
      changed(element);
    }
  };

  const all = () => document.querySelectorAll("[data-topic]").forEach(changed);

  // --- the stream ---------------------------------------------------------------------------------

  const take = (block) => {
    let data = "";
    for (const line of block.split("\n")) {
      if (line.startsWith("data:")) data += line.slice(5).trimStart();
      else if (line.startsWith("id:")) last = line.slice(3).trim();
    }
    if (!data) return;
    try {
      tell(JSON.parse(data));
    } catch (error) {
      console.warn("an event that is not JSON", error);
    }
  };

  const read = async (response) => {
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const blocks = (rest + value.replaceAll("\r", "")).split("\n\n");
      rest = blocks.pop();
      blocks.forEach(take);
    }
  };

  const open = async () => {
    clearTimeout(retry);
    const topics = wanted();
    if (!topics.length || document.hidden) return;
    if (opened !== topics.join(" ")) last = ""; // an id has the cursors of these topics
    opened = topics.join(" ");
    const mine = (stream = new AbortController());
    const query = topics.map((topic) => `topic=${encodeURIComponent(topic)}`).join("&");
    const headers = { accept: "text/event-stream" };
    if (last) headers["last-event-id"] = last;
    try {
      const response = await fetch(`${document.body.dataset.events}?${query}`, {
        headers, signal: mine.signal, cache: "no-store",
      });
      if (response.status === 204 || (response.status >= 400 && response.status < 500)) {
        show("", false); // not live here: no use in asking again
        return;
      }
      if (!response.ok) throw new Error(response.status);
      if (failures) all(); // what was missed
      failures = 0;
      show("live", false);
      await read(response);
    } catch {
      // A server that restarts; below it is asked again.
    }
    if (stream !== mine) return;
    stream = null;
    failures += 1;
    if (failures > 1) show("reconnecting", true);
    const wait = Math.min(WAIT_MS * 2 ** (failures - 1), WAIT_MS_MAX);
    retry = setTimeout(open, wait * (0.5 + Math.random()));
  };

  const close = () => {
    clearTimeout(retry);
    const mine = stream;
    stream = null;
    if (mine) mine.abort();
  };

  const again = () => {
    if (document.hidden || (stream && wanted().join(" ") === opened)) return;
    close();
    open();
  };

  document.addEventListener("visibilitychange", () => {
    if (document.hidden) close();
    else {
      all();
      open();
    }
  });
  addEventListener("pagehide", close);
  addEventListener("pageshow", (event) => event.persisted && again());
  document.addEventListener("htmx:after:swap", again);
  perdure.live = { again, close, missed, passes };
  document.addEventListener("DOMContentLoaded", open);
})();
