// The page: a row of places to go, the one that the address names, and whether the gateway is there.

import { showBus } from "./bus";
import { el, setClass, setText } from "./dom";
import { milliseconds } from "./format";
import { showMarket } from "./market/page";
import { addressOf, currentRoute } from "./route";
import { showStorage } from "./storage";
import "./style.css";
import { showSubscribers } from "./subscribers";
import { Watch } from "./watch";

type Show = (root: HTMLElement, watch: Watch) => () => void;

const PAGES = new Map<string, [title: string, show: Show]>([
  ["market", ["Market", showMarket]],
  ["bus", ["Bus", showBus]],
  ["subscribers", ["Subscribers", showSubscribers]],
  ["storage", ["Storage", showStorage]],
]);

/** An answer that is so old is no sign that the gateway is there. */
const STALE_MS = 3000;
const STATE_INTERVAL_MS = 500;

const watch = new Watch();
const links = new Map([...PAGES].map(([page, [title]]) => [page, el("a", "", title)]));
const state = el("span", "badge");
const root = el("main");
let stop = () => {};

function show(): void {
  const { page } = currentRoute();
  const [title, show] = PAGES.get(page) ?? PAGES.get("market")!;
  stop();
  root.replaceChildren();
  root.dataset["page"] = title.toLowerCase();
  document.title = `${title} · Tapewire`;
  for (const [name, link] of links) {
    link.href = addressOf(name);
    link.toggleAttribute("aria-current", name === title.toLowerCase());
  }
  stop = show(root, watch);
}

function paintState(): void {
  const age = performance.now() - watch.heard;
  const isHeard = age < STALE_MS;
  const silence = watch.heard === -Infinity ? "connecting" : `disconnected: silent for ${milliseconds(age)}`;
  setText(state, isHeard ? "connected" : silence);
  setClass(state, isHeard ? "badge live" : "badge stale");
  state.title = watch.failure ?? "";
}

function footer(): HTMLElement {
  const tradingView = el("a", "", "https://www.tradingview.com/");
  tradingView.href = "https://www.tradingview.com/";
  const licenses = el("a", "", "Licences");
  licenses.href = "./licenses.txt";
  return el("footer", "", "TradingView Lightweight Charts™ Copyright (c) 2025 TradingView, Inc. ", tradingView, " · ", licenses);
}

document.body.append(el("header", "", el("strong", "", "Tapewire"), el("nav", "", ...links.values()), state), root, footer());
addEventListener("hashchange", show);
watch.start();
watch.listen(paintState);
setInterval(paintState, STATE_INTERVAL_MS);
show();
