// A bus with a publisher, a store, subscribers and a gateway, as processes of their own.

import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

const PATIENCE_MS = 60_000;
/** The store takes whole segments: they are small. */
const SEGMENTS = ["--segment-pages", "2", "--journal-pages", "8"];

/** Looks until `look` finds something. */
export async function until(what, look) {
  const deadline = Date.now() + PATIENCE_MS;
  for (;;) {
    const found = await look();
    if (found) {
      return found;
    }
    if (Date.now() > deadline) {
      throw new Error(`waited too long for: ${what}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

export class Bus {
  directory = mkdtempSync(join(tmpdir(), "tapewire-page-"));
  running = new Set();

  constructor(binary) {
    this.binary = binary;
  }

  start(...words) {
    const child = spawn(this.binary, words, { stdio: ["ignore", "pipe", "inherit"] });
    const lines = [];
    createInterface(child.stdout).on("line", (line) => lines.push(line));
    const running = { child, lines, words, ended: new Promise((resolve) => child.on("exit", (code) => resolve(code))) };
    this.running.add(running);
    return running;
  }

  publish(feed) {
    return this.start("publish", "--bus", this.directory, "--feed", feed, "--speed", "2000", ...SEGMENTS);
  }

  store() {
    const small = ["--hot-bytes", "200000", "--table-bytes", "200000", "--interval-ms", "20"];
    return this.start("store", this.directory, ...small);
  }

  subscribe(tier) {
    return this.start("digest", "--bus", this.directory, "--tier", tier, "--from", "live", "--until", "never", "--wait-seconds", "30");
  }

  async gateway(listen = "127.0.0.1:0") {
    const running = this.start("gateway", this.directory, "--listen", listen, "--wait-seconds", "30");
    running.address = await until("the gateway listens", () => running.lines[0] && JSON.parse(running.lines[0]).listening);
    return running;
  }

  /** Ends a process of ours in good order. */
  async end(running) {
    running.child.kill("SIGTERM");
    const code = await running.ended;
    this.running.delete(running);
    if (code !== 0) {
      throw new Error(`${running.words.join(" ")} ended with ${code}`);
    }
  }

  async remove() {
    for (const running of this.running) {
      running.child.kill("SIGKILL");
      await running.ended;
    }
    rmSync(this.directory, { recursive: true, force: true });
  }
}
