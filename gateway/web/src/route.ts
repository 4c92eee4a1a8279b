// What is shown is in the address: `#/market?symbol=btcusdt&interval=1s`.

export interface Route {
  page: string;
  options: URLSearchParams;
}

export function currentRoute(): Route {
  const [path = "", query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  return { page: path || "market", options: new URLSearchParams(query) };
}

/** The address of a page, with the options of the one that is shown. */
export function addressOf(page: string, changes: Record<string, string> = {}): string {
  const { options } = currentRoute();
  for (const [name, value] of Object.entries(changes)) {
    options.set(name, value);
  }
  const query = options.toString();
  return `#/${page}${query && `?${query}`}`;
}

/** Changes an option of the page that is shown: the address changes, and the page follows it. */
export function choose(name: string, value: string): void {
  location.hash = addressOf(currentRoute().page, { [name]: value });
}
