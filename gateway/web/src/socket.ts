// A WebSocket of combined streams that connects again by itself.

import { Backoff } from "./backoff";

export type Link = { state: "connecting" } | { state: "open" } | { state: "lost"; reason: string };

export interface Listener {
  /** The connection changed. */
  onLink(link: Link): void;
  /** A message of a stream; `stream` is empty for those of the gateway itself. */
  onMessage(stream: string, data: unknown): void;
}

export class StreamSocket {
  private socket: WebSocket | undefined;
  private timer: number | undefined;
  private isStopped = false;
  private readonly backoff = new Backoff();
  private readonly onWake = () => {
    // What was put off while nobody looked is not put off any longer.
    if (!document.hidden && this.timer !== undefined) {
      this.connect();
    }
  };

  constructor(
    private readonly streams: string[],
    private readonly listener: Listener,
  ) {
    document.addEventListener("visibilitychange", this.onWake);
    window.addEventListener("online", this.onWake);
    this.connect();
  }

  stop(): void {
    this.isStopped = true;
    document.removeEventListener("visibilitychange", this.onWake);
    window.removeEventListener("online", this.onWake);
    clearTimeout(this.timer);
    this.socket?.close();
  }

  private connect(): void {
    clearTimeout(this.timer);
    this.timer = undefined;
    this.listener.onLink({ state: "connecting" });
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(`${scheme}//${location.host}/stream?streams=${this.streams.join("/")}`);
    this.socket = socket;
    socket.onopen = () => {
      if (!this.isStopped) {
        this.listener.onLink({ state: "open" });
      }
    };
    socket.onmessage = (message) => {
      if (this.isStopped) {
        return;
      }
      // A connection that is closed at once is no reason to try again at once.
      this.backoff.reset();
      const parsed = JSON.parse(message.data) as { stream?: string; data?: unknown };
      this.listener.onMessage(parsed.stream ?? "", parsed.data ?? parsed);
    };
    socket.onclose = (event) => {
      if (this.isStopped) {
        return;
      }
      this.listener.onLink({ state: "lost", reason: event.reason || "the connection broke" });
      this.timer = window.setTimeout(() => this.connect(), this.backoff.wait());
    };
  }
}
