// Builds the page into `dist`, which is committed: the same files for the same input, with names that do not change.

import { readFileSync } from "node:fs";
import { defineConfig, type Plugin } from "vite";

/** What is in the bundle besides our own, with the notice that each asks for. */
const PARTS = [
  {
    name: "lightweight-charts",
    notice:
      "TradingView Lightweight Charts(tm)\nCopyright (c) 2025 TradingView, Inc. https://www.tradingview.com/\n" +
      "fancy-canvas, which is part of it: by TradingView, Inc., MIT",
    license: "node_modules/lightweight-charts/LICENSE",
  },
  { name: "uPlot", notice: "https://github.com/leeoniya/uPlot", license: "node_modules/uplot/LICENSE" },
];

/** Writes the licences of what is bundled beside it. */
const licenses: Plugin = {
  name: "licenses",
  generateBundle() {
    const texts = PARTS.map((it) => `${it.name}\n\n${it.notice}\n\n${readFileSync(new URL(it.license, import.meta.url), "utf8").trim()}\n`);
    this.emitFile({ type: "asset", fileName: "licenses.txt", source: texts.join(`\n${"-".repeat(78)}\n\n`) });
  },
};

export default defineConfig({
  base: "./",
  plugins: [licenses],
  build: {
    target: "es2022",
    assetsInlineLimit: 0,
    cssCodeSplit: false,
    modulePreload: false,
    reportCompressedSize: false,
    rolldownOptions: { output: { entryFileNames: "page.js", codeSplitting: false, assetFileNames: "page[extname]" } },
  },
  // For work on the page beside a gateway that runs at its usual address.
  server: { proxy: { "/api": "http://127.0.0.1:9080", "/stream": { target: "ws://127.0.0.1:9080", ws: true } } },
});
