// Every page in a real browser, on the data of a live bus: `node test/browser.mjs BINARY [FOLDER FOR SCREENSHOTS]`.

import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";
import { Bus, until } from "./processes.mjs";

const [binary, shots = join(tmpdir(), "tapewire-page-shots")] = process.argv.slice(2);
assert(binary, "name the binary: node test/browser.mjs target/debug/tapewire");
const CHROMIUM = process.env["CHROMIUM"] ?? "/usr/bin/chromium";
const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];
const WIDTHS = [1280, 390];
const UPDATES_PER_S_MAX = 10;
const FEED = "sim:seed=1";

const bus = new Bus(binary);
const profile = mkdtempSync(join(tmpdir(), "tapewire-profile-"));
let context;
try {
  mkdirSync(shots, { recursive: true });
  const publisher = bus.publish(FEED);
  const gateway = await bus.gateway();
  bus.store();
  bus.subscribe("delayed");
  bus.subscribe("realtime");
  context = await chromium.launchPersistentContext(profile, { executablePath: CHROMIUM, args: FLAGS, viewport: { width: 1280, height: 900 } });
  const page = await context.newPage();
  const complaints = [];
  page.on("console", (it) => ["error", "warning"].includes(it.type()) && complaints.push(it.text()));
  page.on("pageerror", (it) => complaints.push(String(it)));
  const origin = `http://${gateway.address}`;

  for (const width of WIDTHS) {
    await page.setViewportSize({ width, height: width < 700 ? 844 : 900 });
    for (const [name, check] of Object.entries(PAGES())) {
      // A page of its own each time: whoever opens its address sees it.
      await page.goto("about:blank");
      await page.goto(`${origin}/#/${name}`);
      await check(page);
      await fits(page, name, width);
      await page.screenshot({ path: join(shots, `${name}-${width}.png`), fullPage: true });
      console.log(`${name} at ${width} px`);
    }
  }
  await page.setViewportSize({ width: 1280, height: 900 });
  await followsItsAddress(page, origin);
  await isPaintedAtMostTenTimesASecond(page);
  await isNotPaintedWhileHidden(page);
  assert.deepEqual(complaints, [], "what the browser complains of");
  await showsTheEnd(page, origin, publisher);
  await connectsAgain(page, gateway);
  console.log(`screenshots: ${shots}`);
} finally {
  await context?.close();
  await bus.remove();
  rmSync(profile, { recursive: true, force: true });
}

/** What each page must show. */
function PAGES() {
  return {
    market: async (page) => {
      await badge(page, "live");
      await moves(page, ".ladder .sequence");
      await moves(page, ".tape .print:nth-of-type(2) .time");
      // Whole seconds of trades, so that there is something to look at.
      await page.waitForFunction(() => Number(document.querySelector(".chart").dataset.bars) >= 8);
      assert.equal(await page.locator(".ladder .level.bid .price").filter({ hasText: /\d/ }).count(), 20);
      for (const side of ["buy", "sell"]) {
        await until(`a taker is to ${side}`, () => page.locator(`.tape .print.${side}`).count());
      }
      // Its style, the only one that is not the page's own, is let in.
      assert.equal(await page.locator("#tv-attr-logo").evaluate((it) => getComputedStyle(it).position), "absolute");
    },
    bus: async (page) => {
      await moves(page, ".stream dd >> nth=2");
      await moves(page, ".publishers td >> nth=3");
      await page.waitForFunction(() => Number(document.querySelector(".rate").dataset.points) >= 4);
      assert.match(await page.locator(".publishers td").nth(2).innerText(), /^[\d,]+$/);
    },
    subscribers: async (page) => {
      await page.waitForFunction(() => document.querySelectorAll(".subscribers tbody tr").length >= 3);
      await moves(page, ".subscribers tbody tr:first-child td:nth-child(5)");
      const tiers = await page.locator(".subscribers tbody td:nth-child(3)").allInnerTexts();
      assert(tiers.includes("realtime") && tiers.includes("delayed"), tiers.join());
    },
    storage: async (page) => {
      await moves(page, ".log dd >> nth=3");
      await until("a segment is stored", () => page.locator(".levels tbody tr").count());
      assert(await page.locator(".store").isVisible());
    },
  };
}

/** The text of an element changes. */
async function moves(page, selector) {
  const element = page.locator(selector).first();
  const text = () => element.innerText();
  const before = await until(`${selector} says something`, text);
  await until(`${selector} moves on from ${before}`, async () => (await text()) !== before);
}

async function badge(page, says) {
  await until(`the ladder is ${says}`, async () => (await page.locator(".ladder .badge").innerText()).startsWith(says));
}

async function sequence(page) {
  return Number((await page.locator(".ladder .sequence").innerText()).replace(/\D/g, ""));
}

/** Nothing lies beside the screen. */
async function fits(page, name, width) {
  const needed = await page.evaluate(() => document.documentElement.scrollWidth);
  assert(needed <= width, `${name} is ${needed} px wide at ${width}`);
}

async function followsItsAddress(page, origin) {
  await page.goto(`${origin}/#/market?symbol=sim0003&interval=1m`);
  await badge(page, "live");
  assert.equal(await page.locator("select").inputValue(), "sim0003");
  assert.equal(await page.locator(".choice .chosen").innerText(), "1m");
  await page.locator("select").selectOption("sim0002");
  await until("the address follows", () => page.url().includes("symbol=sim0002"));
  await badge(page, "live");
}

async function isPaintedAtMostTenTimesASecond(page) {
  for (const widget of ["ladder", "tape"]) {
    const { updates, seconds } = await page.evaluate(async (widget) => {
      let updates = 0;
      const observer = new MutationObserver(() => (updates += 1));
      const begin = performance.now();
      observer.observe(document.querySelector(`.${widget}`), { subtree: true, childList: true, characterData: true, attributes: true });
      await new Promise((resolve) => setTimeout(resolve, 3000));
      observer.disconnect();
      return { updates, seconds: (performance.now() - begin) / 1000 };
    }, widget);
    console.log(`${widget}: ${updates} updates in ${seconds.toFixed(1)} s`);
    assert(updates > 0 && updates <= UPDATES_PER_S_MAX * seconds + 1, `${widget}: ${updates} in ${seconds} s`);
  }
}

async function isNotPaintedWhileHidden(page) {
  const hide = (isHidden) =>
    page.evaluate((isHidden) => {
      Object.defineProperty(document, "hidden", { configurable: true, get: () => isHidden });
      document.dispatchEvent(new Event("visibilitychange"));
    }, isHidden);
  await hide(true);
  // A painting that was under way ends; none follows it.
  await page.waitForTimeout(200);
  const before = await sequence(page);
  await until("the book goes on", async () => (await depth(page)).lastUpdateId > before + 500);
  assert.equal(await sequence(page), before);
  await hide(false);
  await until("the page goes on", async () => (await sequence(page)) > before + 500);
}

async function depth(page) {
  const name = await page.locator("select").inputValue();
  return page.evaluate(async (name) => (await fetch(`/api/v3/depth?symbol=${name}&limit=20`)).json(), name);
}

/** Where nobody publishes any more, what is shown is exactly what the gateway has, and is said to be old. */
async function showsTheEnd(page, origin, publisher) {
  await bus.end(publisher);
  await badge(page, "stale: silent");
  const book = await depth(page);
  assert.equal(await sequence(page), book.lastUpdateId);
  for (const [side, levels] of [["bid", book.bids], ["ask", book.asks.toReversed?.() ?? [...book.asks].reverse()]]) {
    const shown = await page.locator(`.ladder .level.${side}`).evaluateAll((rows) => rows.map((it) => [...it.querySelectorAll("span")].map((cell) => Number(cell.textContent))));
    assert.deepEqual(shown.map(([price, quantity]) => [price, quantity]), levels.map((it) => it.map(Number)));
  }
  const name = await page.locator("select").inputValue();
  const [last] = await (await fetch(`${origin}/api/v3/trades?symbol=${name}&limit=1`)).json();
  const newest = await page.locator(".tape .print:not(.heads)").first().locator("span").allInnerTexts();
  assert.deepEqual(newest.slice(1).map(Number), [Number(last.price), Number(last.qty)]);
}

/** A gateway that went away and came back is found again, without anybody's help. */
async function connectsAgain(page, gateway) {
  await bus.end(gateway);
  await until("the page says that it is alone", async () => (await page.locator("header .badge").innerText()).startsWith("disconnected"));
  await badge(page, "stale:");
  await page.screenshot({ path: join(shots, "disconnected-1280.png") });
  const before = await sequence(page);
  bus.publish(FEED);
  await bus.gateway(gateway.address);
  await badge(page, "live");
  await until("the book goes on", async () => (await sequence(page)) > before);
  await until("the page says that it is connected", async () => (await page.locator("header .badge").innerText()) === "connected");
}
