// A page of one of the bus's streams: who chooses it, and when it is painted.

import type { StreamStats } from "./api";
import { el, setText } from "./dom";
import { Painter } from "./painter";
import { choose, currentRoute } from "./route";
import type { Watch } from "./watch";

/** What a page paints of a stream. */
export interface StreamView {
  elements: HTMLElement[];
  paint(stream: StreamStats): void;
  stop?(): void;
}

/** Shows a page of the stream that the address names; what is returned ends it. */
export function showStream(root: HTMLElement, watch: Watch, view: StreamView): () => void {
  const picker = el("select");
  picker.setAttribute("aria-label", "Stream");
  picker.onchange = () => choose("stream", picker.value);
  const faults = el("p", "faults");
  const empty = el("p", "empty", "The bus has no stream yet.");
  root.append(el("div", "bar", picker), faults, empty, ...view.elements);
  const painter = new Painter(() => {
    const stream = watch.streamOf(currentRoute().options.get("stream"));
    empty.hidden = stream !== undefined;
    setText(faults, watch.stats?.faults.join("\n") ?? "");
    if (stream) {
      const names = watch.stats!.streams.map((it) => it.stream);
      if (names.join("\n") !== [...picker.options].map((it) => it.value).join("\n")) {
        picker.replaceChildren(...names.map((it) => new Option(it, it)));
      }
      picker.value = stream.stream;
      view.paint(stream);
    }
  });
  const leave = watch.listen(() => painter.request());
  return () => {
    leave();
    painter.stop();
    view.stop?.();
  };
}
